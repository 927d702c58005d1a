"""Units of systemd, and the settings files beside them: these name every setting with its default, and are accepted."""

import configparser
import re
import tomllib
from pathlib import Path
from typing import cast

import click
import pytest

from control.main import controller
from edge_agent.main import agent
from services.gateway.main import gateway
from services.intake.main import intake
from services.runtime.process import ExitCode
from tests.kit.tree import ROOT

FOLDER = ROOT / "compose" / "systemd"
ORDERS = {"config", "down", "drain"}
"""Options that say what a command shall do, and are no settings."""
ELSEWHERE = {"label": "labels"}
"""Options that the file has under another name."""
SETTING = re.compile(r"^(?:# )?(\w+) = (.*)$")


def _as_list(value: object) -> object:
    """What the file says of an option that may be repeated, or of any other."""
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


def _settings(text: str) -> list[tuple[str, object, str]]:
    """Return each setting of a file, commented out or not, with its value and the comment before it."""
    found: list[tuple[str, object, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        if setting := SETTING.match(line):
            found.append(
                (setting[1], tomllib.loads(line.removeprefix("# "))[setting[1]], " ".join(comment))
            )
        elif line.startswith("# ["):
            return found  # a table is the end of the file
        elif line.startswith("#"):
            comment.append(line)
        else:
            comment = []
    return found


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (agent, "agent.toml"),
        (controller, "controller.toml"),
        (gateway, "gateway.toml"),
        (intake, "intake.toml"),
    ],
)
def test_every_setting_stands_in_the_example_with_its_default(
    command: click.Command, name: str
) -> None:
    text = (FOLDER / name).read_text()
    settings = _settings(text)
    options = {option.name: option for option in command.params}
    given = [key for key, _, _ in settings]
    wanted = options.keys() - ORDERS - ELSEWHERE.keys()
    assert sorted(given) == sorted(wanted), f"{name} has to name each setting once"
    assert all(f"# [{table}]" in text for key, table in ELSEWHERE.items() if key in options)
    context = command.make_context(name, [])
    for key, value, comment in settings:
        if "(default" in comment:
            continue  # which is told in words
        default = context.params[key]
        known = _as_list(default)
        assert value == known, f"{key} of {name}: say its default, {known!r}"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (agent, "agent.toml"),
        (controller, "controller.toml"),
        (gateway, "gateway.toml"),
        (intake, "intake.toml"),
    ],
)
def test_the_example_is_accepted_with_and_without_all_that_is_commented_out(
    command: click.Command, name: str, tmp_path: Path
) -> None:
    text = (FOLDER / name).read_text()
    everything = re.sub(r"^# (?=\w+ = |\[\w+\]$)", "", text, flags=re.MULTILINE)
    everything = everything.replace("gossip_key = []", f'gossip_key = ["{"00" * 16}"]')
    for variant in (text, everything):
        file = tmp_path / name
        file.write_text(variant)
        context = command.make_context(name, ["--config", str(file)])
        assert context.params["state"] == Path("/var/lib/shoal") / name.removesuffix(".toml")
        for key, value in tomllib.loads(variant).items():
            if key not in {"labels", "state", "gossip_key"}:
                seen = _as_list(context.params[key])
                assert seen == value or str(seen) == value
        if "\n[labels]" in variant:
            assert context.params["label"] == ("role=camera",)


@pytest.mark.parametrize("name", ["agent", "controller", "gateway", "intake"])
def test_a_unit_starts_its_command_with_its_example_and_state(name: str) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(FOLDER / f"shoal-{name}.service")
    service = unit["Service"]
    settings = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    assert service["ExecStart"].endswith(f"/shoal {name} --config /etc/shoal/{name}.toml")
    assert settings["state"] == f"/var/lib/{service['StateDirectory']}"
    assert service["Restart"] == "on-failure"
    if name == "agent":  # keeper, stream worker and jobs outlive it
        assert service["KillMode"] == "process"
    elif name == "controller":
        superseded, other = int(ExitCode.SUPERSEDED), int(ExitCode.OTHER_VERSION)
        assert service["RestartPreventExitStatus"] == f"{superseded} {other}"
