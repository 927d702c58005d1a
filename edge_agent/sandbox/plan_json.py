"""A plan as it crosses a socket or a pipe, read strictly: what is not understood whole starts nothing.

What is not said has its default, so that a reader of before, which knows fewer fields, takes a plan without them.
The rules about files, of which there are many and which most plans have alike, are one text, written and read once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Final, TypeVar, cast

from edge_agent.sandbox.plan import FilesRule, SandboxPlan

_NUMBER_MAX: Final = 1 << 63
"""What no number of a plan reaches: the kernel's are of 64 bits."""

_RULES_KEPT: Final = 64

T = TypeVar("T")


def plan_to_json(plan: SandboxPlan) -> Mapping[str, object]:
    """Write what a plan says beyond an empty one."""
    said: dict[str, object] = {}
    for name, default in _DEFAULTS:
        value = getattr(plan, name)
        if value is not default and value != default:
            said[name] = _rules_text(value) if name == "files" else value
    return said


def plan_from_json(value: object) -> SandboxPlan:
    """Read a plan; fields that are left out have their defaults.

    Raises:
        ValueError: a field is unknown, or its value is not of its kind.
    """
    given = _object(value, "plan")
    unknown = given.keys() - _READERS.keys()
    if unknown:
        raise ValueError(
            f"a plan of a sandbox has no field {min(unknown)!r}: it is of another version"
        )
    return SandboxPlan(
        **{name: _READERS[name](found, f"plan's {name}") for name, found in given.items()}  # type: ignore[arg-type]
    )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"the {what} is {value!r} and not a text without NUL")
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"the {what} is {value!r} and not true or false")  # noqa: TRY004 - as all that is wrong
    return value


def _number(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < _NUMBER_MAX:
        raise ValueError(f"the {what} is {value!r} and not a number from -1")
    return value


def _score(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -1000 <= value <= 1000:
        raise ValueError(f"the {what} is {value!r} and not from -1000 to 1000")
    return value


def _rule(value: object, what: str) -> FilesRule:
    pair = _list(value, what)
    if len(pair) != len(FilesRule._fields):
        raise ValueError(f"the {what} has {value!r}, which is not a path and whether it is written")
    return FilesRule(_text(pair[0], what), _flag(pair[1], what))


@lru_cache(maxsize=_RULES_KEPT)
def _rules_text(rules: tuple[FilesRule, ...]) -> str:
    return json.dumps(rules)


@lru_cache(maxsize=_RULES_KEPT)
def _rules_of(text: str, what: str) -> tuple[FilesRule, ...]:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {what} are no JSON: {error}") from None
    return _all(_rule)(found, what)


def _rules(value: object, what: str) -> tuple[FilesRule, ...]:
    return _rules_of(_text(value, what), what)


def _limit(value: object, what: str) -> tuple[int, int]:
    pair = _list(value, what)
    if len(pair) != len(("which", "amount")):
        raise ValueError(f"the {what} has {value!r}, which is not a limit and its value")
    return _number(pair[0], what), _number(pair[1], what)


def _all(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    return lambda value, what: tuple(read(one, what) for one in _list(value, what))


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"the {what} is {value!r} and not a list")  # noqa: TRY004 - as all that is wrong
    return list(cast("list[object]", value))


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"the {what} is {value!r} and not an object")  # noqa: TRY004 - as all that is wrong
    return cast("dict[str, object]", value)


_DEFAULTS: Final = tuple((one.name, one.default) for one in fields(SandboxPlan))
_READERS: Final[dict[str, Callable[[object, str], object]]] = {
    "join": _all(_text),
    "oom_score": _score,
    "limits": _all(_limit),
    "uid": _number,
    "gid": _number,
    "groups": _all(_number),
    "no_new_privileges": _flag,
    "files": _rules,
    "own": _all(_rule),
    "scoped": _flag,
    "seccomp": _text,
    "wrap": _all(_text),
    "kill": _all(_text),
    "attempts": _text,
}
