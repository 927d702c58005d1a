"""What controllers and agents refuse about gossip, alike and before anything is bound."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.config import ControllerConfig
from control.main import controller
from edge_agent.config import AgentConfig
from edge_agent.main import agent
from shoal.model import Capacity


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Both commands send the log of their process to its stderr, which ends with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("command", [controller, agent], ids=["controller", "agent"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--serf-rpc", "0.0.0.0:7373"], "others could command this member"),
        (["--serf-rpc", "nowhere"], "nowhere"),
        (["--members-http", "nowhere"], "nowhere"),
        (["--gossip", "off", "--members-http", "127.0.0.1:0"], "--members-http is about gossip"),
        (["--gossip", "off", "--gossip-key", "a" * 32], "--gossip-key is about gossip"),
        (["--gossip-label", "x" * 256], "at most 255"),
        (["--gossip-key", "secret-tomato"], "a key of 13 characters"),
    ],
)
def test_a_setting_of_gossip_that_cannot_be_is_refused(
    tmp_path: Path, command: object, words: list[str], said: str
) -> None:
    assert command in (controller, agent)
    chosen = controller if command is controller else agent
    result = CliRunner().invoke(chosen, ["--state", str(tmp_path), *words])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert "secret-tomato" not in result.output


def test_a_missing_keyring_is_refused_by_a_process_with_the_remedy(tmp_path: Path) -> None:
    words = ["--state", str(tmp_path / "state"), "--gossip-keyring", str(tmp_path / "none")]
    ports = ["--grpc", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--insecure"]
    result = CliRunner().invoke(controller, [*words, *ports])
    assert result.exit_code == 2
    assert "shoal keys generate >" in result.output


def test_keys_are_not_in_what_a_configuration_prints(tmp_path: Path) -> None:
    keys = (b"0123456789abcdef",)
    shown = [
        repr(ControllerConfig(state=tmp_path, gossip_keys=keys, serf_rpc_auth="tomato")),
        repr(
            AgentConfig(
                name="node-1",
                state=tmp_path,
                capacity=Capacity(1, 1),
                architecture="x86_64",
                gossip_keys=keys,
                serf_rpc_auth="tomato",
            )
        ),
    ]
    assert all("0123456789abcdef" not in text and "tomato" not in text for text in shown)


@pytest.mark.parametrize("command", ["controller", "agent"])
def test_help_shows_no_secret_that_the_environment_holds(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = controller if command == "controller" else agent
    monkeypatch.setenv(f"SHOAL_{command.upper()}_GOSSIP_KEY", "30" * 16)
    monkeypatch.setenv(f"SHOAL_{command.upper()}_SERF_RPC_AUTH", "tomato")
    result = CliRunner().invoke(chosen, ["--help"])
    assert result.exit_code == 0
    assert "30" * 16 not in result.output
    assert "tomato" not in result.output
