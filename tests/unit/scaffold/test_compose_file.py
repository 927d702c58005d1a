"""The compose file and the Dockerfiles, as far as they can be read without docker."""

import configparser
import re
from pathlib import Path
from typing import Any, Final, cast

import pytest
import yaml

from tests.kit.tree import text

FILE: Final = Path("compose") / "docker-compose.yml"
DOCKERFILES: Final = (
    Path("control") / "Dockerfile",
    Path("edge_agent") / "Dockerfile",
    Path("compose") / "mosquitto" / "Dockerfile",
    Path("compose") / "s3" / "Dockerfile",
)


def _services() -> dict[str, dict[str, Any]]:
    return cast("dict[str, dict[str, Any]]", yaml.safe_load(text(FILE))["services"])


def test_agent_and_controller_have_the_same_dependencies() -> None:
    """So the second build finds what the first one has fetched."""

    def stages(path: Path) -> str:
        words = text(path)
        return words[words.index("\nARG BASE=") : words.index("\nFROM dependencies AS shoal\n")]

    assert stages(Path("edge_agent") / "Dockerfile") == stages(Path("control") / "Dockerfile")


def test_every_variable_of_the_file_is_told_at_its_top() -> None:
    words = text(FILE)
    top = words[: words.index("\nx-contained:")]
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", words))
    assert used
    assert sorted(used - set(re.findall(r"\w+", top))) == []


AGENT_CAPABILITIES: Final = {"SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL"}
"""What an agent gives its jobs users by, and no more."""


def test_every_service_is_built_here_and_has_no_rights_that_it_does_not_need() -> None:
    for name, service in _services().items():
        built = Path(service["build"]["dockerfile"])
        assert built in DOCKERFILES, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        if name.startswith("board-"):
            assert service["user"] == "0:0", name
            assert set(service["cap_add"]) == AGENT_CAPABILITIES, name
            continue
        assert "cap_add" not in service, name
        # An ordinary user in the end, whatever the stages before are.
        users = re.findall(r"^USER (\S+)$", text(built), re.MULTILINE)
        assert users, name
        assert users[-1] not in {"root", "0", "0:0"}, name


def test_the_unit_gives_an_agent_the_same_capabilities() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.read_string(text(Path("compose") / "systemd" / "shoal-agent.service"))
    for option in ("AmbientCapabilities", "CapabilityBoundingSet"):
        given = {word.removeprefix("CAP_") for word in unit["Service"][option].split()}
        assert given == AGENT_CAPABILITIES, option


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_a_dockerfile_takes_its_base_and_fetches_no_frontend(path: Path) -> None:
    words = text(path)
    assert "ARG BASE=python:3.11-slim-bullseye\n" in words
    assert "# syntax" not in words
    assert not re.search(
        r"^FROM (?!.*(\$\{(BUILD_)?BASE\}|base\b|dependencies\b))", words, re.MULTILINE
    )
