"""What an operator may set, and what the command says about what cannot be."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.config import AgentConfig, parse_labels, parse_size
from edge_agent.fingerprint import architecture, boot_id, capacity, default_name
from edge_agent.main import agent
from services.membership.settings import ConfigError
from shoal.model import Capacity
from shoal.names import check_id


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("1000", 1000), ("4GiB", 4 << 30), ("512M", 512_000_000), ("1.5 Ki", 1536)],
)
def test_sizes(text: str, number: int) -> None:
    assert parse_size(text) == number


@pytest.mark.parametrize("text", ["", "x", "-1", "4 parsecs"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("bad", ["host", "host:", "host:x", "host:70000"])
def test_what_is_no_address_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        AgentConfig(
            name="n",
            state=tmp_path,
            controllers=(bad,),
            capacity=Capacity(1.0, 1),
            architecture="aarch64",
        )


def test_labels() -> None:
    assert parse_labels(("role=camera", "at=a=b")) == {"role": "camera", "at": "a=b"}
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_labels(("camera",))


def test_a_name_is_an_id(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--name"):
        AgentConfig(name="Node 1", state=tmp_path, capacity=Capacity(), architecture="x")


def test_the_machine_is_described(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("video0", "video1", "null"):
        (tmp_path / "dev" / name).touch()
    found = capacity(tmp_path)
    assert found.cpus >= 1
    assert found.memory_bytes > 1 << 20
    assert found.devices == ("video", "video")
    assert architecture()
    assert boot_id() == boot_id()
    assert boot_id(tmp_path / "absent") == ""
    check_id("node", default_name())


def run(*arguments: str, **variables: str) -> str:
    done = CliRunner().invoke(agent, arguments, env=variables)
    assert done.exit_code == 2
    return done.output


def test_what_cannot_be_is_named_with_its_remedy(tmp_path: Path) -> None:
    assert "KEY=VALUE" in run("--label", "camera")
    assert "KEY=VALUE" in run(SHOAL_AGENT_LABEL="camera")
    assert "HOST:PORT" in run("--controller", "here")
    assert "--down" in run("--drain")
    config = tmp_path / "agent.toml"
    config.write_text('nam = "x"\n')
    assert "nam" in run("--config", str(config))
    config.write_text('memory = "much"\n[labels]\nrole = "camera"\n')
    assert "much" in run("--config", str(config))
    config.write_text("= nonsense")
    assert "cannot be read" in run("--config", str(config))


def test_a_flag_wins_over_a_variable_and_that_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('memory = "file"\n')
    assert "'file'" in run("--config", str(config))
    assert "'variable'" in run("--config", str(config), SHOAL_AGENT_MEMORY="variable")
    said = run("--config", str(config), "--memory", "flag", SHOAL_AGENT_MEMORY="variable")
    assert "'flag'" in said


def test_help_teaches() -> None:
    done = CliRunner().invoke(agent, ["--help"])
    assert done.exit_code == 0
    for words in ("Examples:", "--down", "SHOAL_AGENT_NAME", "NAT"):
        assert words in done.output
