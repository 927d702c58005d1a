"""A plan as it crosses a socket or a pipe, read strictly: what is not understood whole starts nothing.

What is not said has its default, so that a reader of before, which knows fewer fields, takes a plan without them.
The rules about files, of which there are many and which most plans have alike, are one text, written and read once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

from edge_agent.sandbox.plan import FilesRule, SandboxPlan

_NUMBER_MAX: Final = 1 << 63
"""What no number of a plan reaches: the kernel's are of 64 bits."""

_RULES_KEPT: Final = 64
_TEXTS_KEPT: Final = 256
"""Control groups go from attempt to attempt."""
_LISTS: Final = (list, tuple)
_PLAIN: Final = (str, int, float)
_FLAGS: Final = frozenset({bool})

T = TypeVar("T")


def plan_to_json(plan: SandboxPlan) -> Mapping[str, object]:
    """Write what a plan says beyond an empty one."""
    said: dict[str, object] = {}
    for name, default in _DEFAULTS:
        value = getattr(plan, name)
        if value is not default and value != default:
            said[name] = _rules_text(value) if name == "files" else value
    return said


def plan_text(plan: SandboxPlan) -> str:
    """Write the same as JSON; what the plans of a recipe have alike, which is most of it, is written once."""
    # By identity, as long texts are not looked through; what is kept keeps them.
    key = (
        *(id(plan.files), id(plan.seccomp), plan.limits, plan.groups, plan.attempts),
        *(plan.oom_score, plan.no_new_privileges, plan.scoped),
    )
    known = _written.get(key)
    if known is None:
        alike = replace(plan, join=(), uid=-1, gid=-1, own=(), wrap=(), kill=())
        if len(_written) >= _RULES_KEPT:
            del _written[next(iter(_written))]
        known = _written[key] = plan, _encoded(plan_to_json(alike))[1:-1]
    said = [known[1]] if known[1] else []
    if plan.join:
        said.append(f'"join":{_texts_text(plan.join)}')
    if plan.uid != -1 or plan.gid != -1:
        said.append(f'"uid":{plan.uid},"gid":{plan.gid}')
    if plan.own:
        said.append(f'"own":{_encoded(plan.own)}')
    if plan.wrap:
        said.append(f'"wrap":{_encoded(plan.wrap)}')
    if plan.kill:
        said.append(f'"kill":{_texts_text(plan.kill)}')
    return f"{{{','.join(said)}}}"


def plan_from_json(value: object) -> SandboxPlan:
    """Read a plan; fields that are left out have their defaults.

    Raises:
        ValueError: a field is unknown, or its value is not of its kind.
    """
    given = _object(value, "plan")
    own = {name: read(given[name], what) for name, read, what in _OWN if name in given}
    return SandboxPlan(**_alike_of(given), **own)  # type: ignore[arg-type]


def _alike_of(given: Mapping[str, object]) -> Mapping[str, object]:
    """Read what the plans of a recipe have alike; once for all that say it in the same words."""
    said = tuple(
        [
            (name, type(found), found if isinstance(found, _PLAIN) else repr(found))
            for name, found in given.items()
            if name not in _OWN_NAMES
        ]
    )
    known = _alike.get(said)
    if known is None:
        unknown = given.keys() - _READERS.keys()
        if unknown:
            raise ValueError(
                f"a plan of a sandbox has no field {min(unknown)!r}: it is of another version"
            )
        known = {name: _READERS[name](given[name], f"plan's {name}") for name, _, _ in said}
        if len(_alike) >= _RULES_KEPT:
            del _alike[next(iter(_alike))]
        _alike[said] = known
    return known


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
    try:
        path, write = _list(value, what)
    except ValueError:
        raise ValueError(
            f"the {what} has {value!r}, which is not a path and whether it is written"
        ) from None
    return FilesRule(_text(path, what), _flag(write, what))


@lru_cache(maxsize=_TEXTS_KEPT)
def _texts_text(texts: tuple[str, ...]) -> str:
    return _encoded(texts)


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


def _texts(value: object, what: str) -> tuple[str, ...]:
    texts = tuple(_list(value, what))
    try:
        whole = "\0".join(cast("tuple[str, ...]", texts))
    except TypeError:
        whole = None
    if whole is None or (texts and whole.count("\0") >= len(texts)):
        return tuple(_text(one, what) for one in texts)  # which says what is wrong
    return cast("tuple[str, ...]", texts)


def _own_rules(value: object, what: str) -> tuple[FilesRule, ...]:
    """Read a few rules that no other plan has; `_rule` says what is wrong with one."""
    given = _list(value, what)
    try:
        found = tuple([FilesRule(path, write) for path, write in cast("list[list[Any]]", given)])
        paths = "\0".join([one.path for one in found])
    except (TypeError, ValueError):
        return tuple([_rule(one, what) for one in given])
    if paths.count("\0") >= max(1, len(found)) or not {type(one.write) for one in found} <= _FLAGS:
        return tuple([_rule(one, what) for one in given])
    return found


def _limit(value: object, what: str) -> tuple[int, int]:
    pair = _list(value, what)
    if len(pair) != len(("which", "amount")):
        raise ValueError(f"the {what} has {value!r}, which is not a limit and its value")
    return _number(pair[0], what), _number(pair[1], what)


def _all(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    return lambda value, what: tuple([read(one, what) for one in _list(value, what)])


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, _LISTS):
        raise ValueError(f"the {what} is {value!r} and not a list")  # noqa: TRY004 - as all that is wrong
    return cast("list[object]", value)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"the {what} is {value!r} and not an object")  # noqa: TRY004 - as all that is wrong
    return cast("dict[str, object]", value)


_DEFAULTS: Final = tuple((one.name, one.default) for one in fields(SandboxPlan))
_READERS: Final[dict[str, Callable[[object, str], object]]] = {
    "join": _texts,
    "oom_score": _score,
    "limits": _all(_limit),
    "uid": _number,
    "gid": _number,
    "groups": _all(_number),
    "no_new_privileges": _flag,
    "files": _rules,
    "own": _own_rules,
    "scoped": _flag,
    "seccomp": _text,
    "wrap": _texts,
    "kill": _texts,
    "attempts": _text,
}
_OWN_NAMES: Final = ("join", "uid", "gid", "own", "kill")
"""In what the plans of one recipe differ."""
_OWN: Final = tuple((name, _READERS[name], f"plan's {name}") for name in _OWN_NAMES)
_alike: Final[dict[object, Mapping[str, object]]] = {}
"""What was read of the last recipes."""
_written: Final[dict[object, tuple[SandboxPlan, str]]] = {}
"""What was written of them."""
_encoded: Final = json.JSONEncoder(separators=(",", ":")).encode
