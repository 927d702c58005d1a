"""A settings file of an agent as text: every setting with what it is for, those that were not chosen commented out.

It is made of the command's own options, so it names each of them, with the default that it has.
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final, cast

import click

from edge_agent.config import parse_labels

WIDTH: Final = 118
NO_SETTINGS: Final = frozenset(
    {"config", "down", "drain", "help", "label", "gossip_key", "serf_rpc_auth"}
)
"""Options that say what a command shall do, that the file has as a table, or that are secrets."""

_HEAD: Final = """\
# Settings of a Shoal agent, as `shoal agent init` wrote them. A key that is commented out has the value that stands
# there, or none. A variable such as SHOAL_AGENT_JOIN wins over this file, and an option such as --join over both."""

_MORE: Final = re.compile(r"\s*\[default: .*?\]\s*$")


def settings_text(
    options: Sequence[click.Parameter],
    defaults: Mapping[str, object],
    chosen: Mapping[str, object],
) -> str:
    """Return the text of the file.

    Args:
        options: of the command.
        defaults: what they are where nothing is said.
        chosen: what was chosen, by the options' names.
    """
    parts = [_HEAD]
    for option in options:
        name = option.name or ""
        if not isinstance(option, click.Option) or name in NO_SETTINGS:
            continue
        told = option.help or ""
        value = chosen.get(name, defaults.get(name))
        line = f"{name} = {'' if value is None or value == '' else _toml(value)}".rstrip()
        if name not in chosen:
            line = f"# {line}"
        elif _MORE.search(told):
            told = _MORE.sub("", told)
        parts.append(f"{_comment(told)}\n{line}")
    labels = parse_labels(_words(chosen.get("label")))
    comment = _comment("What jobs may ask for with `place: {require: {role: camera}}`.")
    rows = [f"{json.dumps(key)} = {_toml(value)}" for key, value in labels.items()]
    table = ["[labels]", *rows] if labels else ["# [labels]", '# role = "camera"']
    return "\n\n".join([*parts, "\n".join([comment, *table])]) + "\n"


def _comment(words: str) -> str:
    flat = " ".join(words.split())
    return textwrap.fill(
        flat,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _words(value: object) -> tuple[str, ...]:
    items = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
    return tuple(map(str, items))


def _toml(value: object) -> str:
    """Write a value; TOML takes the words and lists of JSON as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return json.dumps(list(_words(cast("object", value))))
    return json.dumps(str(value))
