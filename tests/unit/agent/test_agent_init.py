"""`shoal agent init`: a settings file that the agent takes, and no file where something is wrong."""

import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edge_agent.main import agent, options_of
from edge_agent.settings_text import NO_SETTINGS

TOKEN = f"shoal1.{'a' * 64}.abcd1234.{'0' * 32}"


@pytest.fixture
def controller() -> Iterator[str]:
    """An address that answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def init(file: Path, *words: str, answers: str = "", **variables: str) -> Result:
    arguments = ["init", "--config", str(file), *words]
    return CliRunner().invoke(agent, arguments, input=answers, env=variables)


def test_what_is_given_is_written_and_taken_by_the_agent(tmp_path: Path, controller: str) -> None:
    """E12."""
    file, token = tmp_path / "new" / "agent.toml", tmp_path / "join.token"
    token.write_text(f"{TOKEN}\n")
    words = ("--name", "n1", "--controller", controller, "--token-file", str(token))
    more = ("--label", "role=camera", "--label", 'place=the "yard"', "--bundle-cache", "2GiB")
    done = init(file, "--yes", *words, *more, "--state", str(tmp_path / "state"))
    assert done.exit_code == 0, done.output
    assert f"shoal agent --config {file}" in done.output
    given = tomllib.loads(file.read_text())
    assert given.pop("labels") == {"role": "camera", "place": 'the "yard"'}
    assert given == {
        "name": "n1",
        "controller": [controller],
        "token_file": str(token),
        "bundle_cache": "2GiB",
        "state": str(tmp_path / "state"),
    }
    taken = options_of(["--config", str(file)], None).params
    assert taken["label"] == ("role=camera", 'place=the "yard"')
    assert taken["bundle_cache"] == "2GiB"


def test_the_file_names_every_setting_and_says_what_it_is_for(
    tmp_path: Path, controller: str
) -> None:
    file = tmp_path / "agent.toml"
    assert init(file, "--yes", "--insecure", "--controller", controller).exit_code == 0
    lines = file.read_text().splitlines()
    assert max(map(len, lines)) <= 120
    for option in agent.params:
        if isinstance(option, click.Option) and option.name not in NO_SETTINGS:
            (at,) = [
                index
                for index, line in enumerate(lines)
                if line.removeprefix("# ").startswith(f"{option.name} =")
            ]
            assert lines[at - 1].startswith("# "), option.name


def test_it_asks_for_what_is_not_given(tmp_path: Path, controller: str) -> None:
    file = tmp_path / "agent.toml"
    # Name, a member, labels, state, three caches, what is kept.
    answers = ["n2", "", "role=lidar location=yard", str(tmp_path / "s"), "", "1GiB", "", ""]
    done = init(file, "--insecure", "--controller", controller, answers="\n".join(answers) + "\n")
    assert done.exit_code == 0, done.output
    given = tomllib.loads(file.read_text())
    assert given["name"] == "n2"
    assert given["labels"] == {"role": "lidar", "location": "yard"}
    assert given["state"] == str(tmp_path / "s")
    assert given["input_cache"] == "1GiB"
    assert "bundle_cache" not in given


def test_a_file_that_is_there_stays_unless_it_is_forced(tmp_path: Path, controller: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("# mine\n")
    words = ("--yes", "--insecure", "--controller", controller)
    done = init(file, *words)
    assert (done.exit_code, file.read_text()) == (2, "# mine\n")
    assert "--force" in done.output
    assert init(file, *words, "--force").exit_code == 0
    assert "mine" not in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["agent.toml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--insecure", "--controller", "127.0.0.1:1"), "nothing answers at 127.0.0.1:1"),
        (("--insecure",), "neither --controller nor --join"),
        (("--controller", "{controller}"), "shoal token create --role node"),
        (("--controller", "{controller}", "--token-file", "/nowhere"), "/nowhere cannot be read"),
        (("--controller", "{controller}", "--token-file", __file__), "no join token"),
    ],
)
def test_what_is_not_so_is_told_with_its_remedy_and_nothing_is_written(
    tmp_path: Path, controller: str, words: tuple[str, ...], said: str
) -> None:
    file = tmp_path / "agent.toml"
    given = [word.format(controller=controller) for word in words]
    given += ["--state", str(tmp_path / "state")]
    done = init(file, "--yes", *given)
    assert done.exit_code == 1
    assert said in done.output
    assert not file.exists()
    assert init(file, "--yes", "--no-check", *given).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--label", "camera"), "KEY=VALUE"),
        (("--name", "Pi 1"), "'Pi 1'"),
        (("--bundle-cache", "much"), "'much'"),
        (("--nam", "x"), "--nam"),
        (("--gossip-key", "00" * 16), "is a secret and is not written"),
    ],
)
def test_what_the_agent_would_refuse_is_not_written(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    file = tmp_path / "agent.toml"
    done = init(file, "--yes", "--no-check", "--insecure", *words)
    assert done.exit_code == 2
    assert said in done.output
    assert not file.exists()
