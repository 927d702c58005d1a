"""The settings files that the roles of Ansible write, as far as they can be made without Ansible."""

import tomllib
from pathlib import Path
from typing import Any, Final, cast

import jinja2
import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from control.main import controller
from edge_agent.main import agent
from tests.kit.tree import text

ROLES: Final = Path("deploy") / "ansible" / "roles"
KINDS: Final = {
    "controller": (controller, "main.yml", "Write the settings of the controller"),
    "board": (agent, "present.yml", "Write the settings of the agent"),
}
FILES: Final = {"controller": "controller.toml.j2", "board": "agent.toml.j2"}
GIVEN: Final = {
    "ansible_host": "10.77.0.1",
    "inventory_hostname": "board-1",
    "shoal_board_controller_host": "10.77.0.1",
}


def _combined(first: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """What Ansible's filter of this name does: the last one wins."""
    return {key: value for each in (first, *others) for key, value in each.items()}


def _written(kind: str, **variables: object) -> dict[str, Any]:
    """The settings that a role writes with these variables and its defaults."""
    role = ROLES / f"shoal_{kind}"
    _, tasks, name = KINDS[kind]
    made: Any = NativeEnvironment()  # its type has the filters that it brings
    made.filters["combine"] = _combined
    defaults = cast("dict[str, object]", yaml.safe_load(text(role / "defaults" / "main.yml")))
    known: dict[str, object] = {**defaults, **GIVEN, **variables}

    def value(of: object) -> object:
        if isinstance(of, str):
            made_of: object = made.from_string(of).render(known) if "{{" in of else of
            return value(made_of) if made_of != of else of
        if isinstance(of, list):
            return [value(one) for one in cast("list[object]", of)]
        if isinstance(of, dict):
            return {key: value(one) for key, one in cast("dict[str, object]", of).items()}
        return of

    known |= {key: value(one) for key, one in known.items() if "operator" not in key}
    found = cast("list[dict[str, Any]]", yaml.safe_load(text(role / "tasks" / tasks)))
    [task] = [one for one in found if one["name"] == name]
    for key, one in task["vars"].items():
        known[key] = value(one)
    page = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701 - TOML is no HTML
    page.filters["to_json"] = page.filters["tojson"]
    return tomllib.loads(page.from_string(text(role / "templates" / FILES[kind])).render(known))


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_served_where_the_role_is_told_and_nowhere_else(kind: str) -> None:
    assert "metrics" not in _written(kind)
    told = _written(kind, **{f"shoal_{kind}_metrics": "127.0.0.1:7473"})
    assert told["metrics"] == "127.0.0.1:7473"
    over = {
        f"shoal_{kind}_metrics": "127.0.0.1:1",
        f"shoal_{kind}_settings": {"metrics": "[::1]:2"},
    }
    assert _written(kind, **over)["metrics"] == "[::1]:2", "settings win"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_role_writes_are_settings_that_there_are(kind: str) -> None:
    command = KINDS[kind][0]
    known = {option.name for option in command.params}
    told = _written(kind, **{f"shoal_{kind}_metrics": "127.0.0.1:7473"})
    assert sorted(set(told) - known) == []
