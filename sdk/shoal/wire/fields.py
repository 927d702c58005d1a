"""One field of a message at a time: what every codec of this package is made of.

`path` is where the field stands in the message, such as `jobs[1].inputs[0].name`. Whatever the
contract does not allow raises `WireError` with it.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar, cast

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from shoal import limits, names
from shoal.trace_context import TraceContextError, parse_traceparent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOS = 1_000_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

T = TypeVar("T")
V = TypeVar("V")


class WireError(ValueError):
    """A message that breaks the contract.

    Attributes:
        path: the field, such as `jobs[1].inputs[0].name`; empty for the message itself.
        problem: what is wrong with it and what would be right, one sentence.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem

    def within(self, path: str) -> "WireError":
        """Return the same about a field of what stands at `path`."""
        joint = "" if not path or not self.path or self.path[0] in ".[" else "."
        return WireError(f"{path}{joint}{self.path}", self.problem)


LeftOut = Callable[[str, WireError], None]
"""Takes the name of an item of a list that breaks the contract, and why; the rest is read."""


def encode_time(moment: datetime | None) -> Timestamp | None:
    """Write a moment; None stays unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def given_time(moment: datetime | None) -> dict[str, int] | None:
    """Return what a message is given that carries a moment; None stays unset."""
    if moment is None:
        return None
    passed = moment - _EPOCH
    return {
        "seconds": passed.days * 86_400 + passed.seconds,
        "nanos": passed.microseconds * 1_000,
    }


def decode_time(stamp: Timestamp, path: str = "time") -> datetime:
    """Read a moment as an aware datetime in UTC, to the microsecond.

    Raises:
        WireError: it is outside the years 1970 to 9998, so that it is a date in every time zone.
    """
    seconds, nanos = stamp.seconds, stamp.nanos
    if not 0 <= seconds < limits.MOMENT_SECONDS_MAX:
        raise WireError(path, f"{seconds} s is not a moment of the years 1970 to 9998")
    if not 0 <= nanos < _NANOS:
        raise WireError(path, f"{seconds} s is not a moment ({nanos} ns are no part of a second)")
    return _EPOCH + timedelta(0, seconds, nanos // 1_000)


def at(path: str, name: str) -> str:
    """Return the path of a field of the message at `path`."""
    return f"{path}.{name}" if path else name


def each(items: Iterable[T], path: str, decode: Callable[[T, str], V]) -> tuple[V, ...]:
    """Decode every item, each with its own path."""
    found: list[V] = []
    try:
        for item in items:
            found.append(decode(item, ""))  # noqa: PERF401 -- how many were read is told
    except WireError as error:
        raise error.within(f"{path}[{len(found)}]") from None
    return tuple(found)


def readable(
    items: Iterable[T],
    path: str,
    decode: Callable[[T, str], V],
    left_out: Callable[[T, WireError], None],
) -> tuple[V, ...]:
    """Decode every item that keeps to the contract; `left_out` gets the others, each with why."""
    found: list[V] = []
    for index, item in enumerate(items):
        try:
            found.append(decode(item, f"{path}[{index}]"))
        except WireError as error:
            left_out(item, error)
    return tuple(found)


def identifier(what: str, value: str, path: str) -> str:
    """Return `value` if it is an id; `what` says of which thing."""
    try:
        return names.check_id(what, value)
    except names.InvalidNameError as error:
        raise WireError(path, str(error)) from None


def attempt_ref(attempt: str, namespace: str, epoch: int, path: str) -> names.AttemptRef:
    """Read which attempt; an empty namespace is `default`."""
    if not 0 <= epoch <= limits.INTEGER_MAX:
        count(epoch, limits.INTEGER_MAX, path)
    try:
        return names.parse_attempt(attempt, namespace or "default", epoch)
    except names.InvalidNameError as error:
        raise WireError(path, str(error)) from None


def strings(items: Mapping[str, str]) -> Mapping[str, str]:
    """Return a sorted copy that cannot be changed."""
    return MappingProxyType(dict(sorted(items.items())))


def variables(items: Mapping[str, str], path: str) -> Mapping[str, str]:
    """Read variables of a program by name."""
    for key, value in items.items():
        text(value, f"{path}[{variable(key, path)}]")
    return strings(items)


def variable(name: str, path: str) -> str:
    """Return `name` if a variable of a program can have it."""
    if _VARIABLE.fullmatch(name) is None:
        raise WireError(
            path, f"{name!r} is not the name of a variable; use letters, digits and underscores"
        )
    return name


def text(value: str, path: str) -> str:
    """Return `value` if a program can be given it."""
    if "\0" in value:
        raise WireError(path, "it holds a NUL character, which no program can be given")
    return value


def word(value: str, path: str) -> str:
    """Return a single word that a peer says of itself, if it is not too long and can be shown on a terminal."""
    if len(value) > limits.WORD_CHARACTERS_MAX:
        raise WireError(
            path,
            f"{value[:40]!r}… has {len(value)} characters; at most {limits.WORD_CHARACTERS_MAX} "
            "are taken",
        )
    if not value.isprintable():
        raise WireError(path, f"{value!r} has characters that cannot be printed")
    return value


def words(values: Iterable[str], path: str) -> tuple[str, ...]:
    """Read a list of words, none of them empty."""
    return each(values, path, _named)


def _named(word: str, path: str) -> str:
    if not word:
        raise WireError(path, "it is empty; name it or leave it out")
    return text(word, path)


def run(values: Iterable[str], path: str) -> tuple[str, ...]:
    """Read the words of a command."""
    words = each(values, path, text)
    if not words or not words[0]:
        raise WireError(path, "there is no program; give the words of the command")
    return words


def patterns(values: Iterable[str], path: str) -> tuple[str, ...]:
    """Read patterns of files to archive; none given is `results/**`."""
    return each(values, path, relative) or ("results/**",)


def relative(value: str, path: str) -> str:
    """Return `value` if it names something inside the job's folder."""
    text(value, path)
    problem = relative_path_problem(value)
    if problem:
        raise WireError(path, f"{value!r} {problem}")
    return value


def relative_path_problem(value: str) -> str:
    """Say why `value` does not name something inside a folder; empty when it does.

    The words complete a sentence that begins with the value.
    """
    if value.startswith("/"):
        return "is an absolute path; name it relative to the job's folder"
    words = {*value.split("/")}
    if words <= {"", "."}:
        return "is not a path; name a file below the job's folder"
    if ".." in words:
        return "has '..' in it; name something inside the job's folder"
    return ""


def sha256(value: str, path: str) -> str:
    """Return `value` if it is a SHA-256 in hex, or empty."""
    if value and _SHA256.fullmatch(value) is None:
        raise WireError(path, f"{value!r} is not a SHA-256; write 64 lower-case hex digits")
    return value


def traceparent(value: str, path: str) -> str:
    """Return `value` if it is a `traceparent` of W3C, or empty."""
    if value:
        try:
            parse_traceparent(value)
        except TraceContextError as error:
            raise WireError(path, str(error)) from None
    return value


def json_problem(text: str) -> str:
    """Say why `text` is no JSON that a program can be given; empty when it is.

    The words complete a sentence that begins with the text.
    """
    if len(text.encode("utf-8", "surrogatepass")) > limits.DEFAULT_JSON_BYTES_MAX:
        return f"… is longer than {limits.DEFAULT_JSON_BYTES_MAX} bytes; send it in a file"
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        deep = _depth(value) > limits.JSON_DEPTH_MAX
    except RecursionError:
        deep = True
    except ValueError:
        return "is no JSON"
    if deep:
        return f"lies deeper than {limits.JSON_DEPTH_MAX} lists or objects; write it flatter"
    return ""


def _depth(value: Any) -> int:
    """How deeply lists and objects of JSON lie within each other; 0 for a single value."""
    if not isinstance(value, list | dict):
        return 0
    inner = cast("Iterable[Any]", value.values() if isinstance(value, dict) else value)
    return 1 + max(map(_depth, inner), default=0)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number as JSON has it")


def duration(value: float, default: float, path: str) -> float:
    """Return so many seconds; 0 is `default`."""
    if problem := limits.duration_problem(value):
        raise WireError(path, f"{value} {problem}")
    return value or default


def number(value: float, most: float, path: str) -> float:
    """Return `value` if it is from 0 to `most`."""
    if problem := limits.count_problem(value, most):
        raise WireError(path, f"{value} {problem}")
    return value


def count(value: int, most: int, path: str) -> int:
    """Return `value` if it is from 0 to `most`."""
    if not 0 <= value <= most:
        raise WireError(path, f"{value} {limits.count_problem(value, most)}")
    return value


def moment(message: Message, field: str, path: str) -> datetime | None:
    """Read a moment that may be unset, to None."""
    if not message.HasField(field):
        return None
    return decode_time(getattr(message, field), at(path, field))
