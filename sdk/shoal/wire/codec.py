"""The codec of a noun: a table of its fields instead of two functions that name each of them.

Theory. A noun of ours is a frozen dataclass, and its message has the same fields under the same names.

Rules. A field that is not in the table is written and read by what the contract says of it: a number,
a word and a flag as they are, a list as a tuple, a map of strings sorted, a moment as an aware
datetime; one that is optional and unset is None. A field that needs more (a check, an enumeration,
another noun) stands in the table with a `FieldCodec`.

Invariant. Every field of the dataclass and of the message has one of the two, or is in `unread`.
`codec` checks that as the module is imported, so a new field of the contract cannot be forgotten.

Example: `codec(Artifact, pipeline_pb2.Artifact, "artifact", path=checked(fields.relative))` copies
`size_bytes`, `sha256` and `key`, and refuses a path that leaves the job's folder as `artifact.path`.
"""

import dataclasses
import enum
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor

from shoal.wire import fields
from shoal.wire.fields import WireError, at

ValueT = TypeVar("ValueT")
ValueT_co = TypeVar("ValueT_co", covariant=True)
MessageT = TypeVar("MessageT")
MessageT_contra = TypeVar("MessageT_contra", contravariant=True)
EnumT = TypeVar("EnumT", bound=enum.Enum)
Check = Callable[[Any, str], Any]
"""Takes what a message holds and its path; returns the value, or raises `WireError`."""


class Decode(Protocol[MessageT_contra, ValueT_co]):
    """Reads a message that stands at `path`."""

    def __call__(self, message: MessageT_contra, path: str = ...) -> ValueT_co:
        """Return the noun.

        Raises:
            WireError: A field breaks the contract.
        """
        ...


class NounCodec(NamedTuple, Generic[ValueT, MessageT]):
    """What writes a noun and what reads it."""

    encode: Callable[[ValueT], MessageT]
    decode: Decode[MessageT, ValueT]


@dataclasses.dataclass(frozen=True, slots=True)
class FieldCodec:
    """How a field of a noun is written and read.

    `read` gets the message, its path, and the name of the field. `write` gets the value of the
    field. With `names` the message has other fields in its place, or none, and `write` returns a
    mapping with a value for each of them.
    """

    read: Callable[[Any, str, str], Any]
    write: Callable[[Any], Any] | None = None
    names: tuple[str, ...] | None = None


def codec(
    value: type[ValueT],
    message: type[MessageT],
    where: str = "",
    /,
    *,
    unread: tuple[str, ...] = (),
    **special: FieldCodec,
) -> NounCodec[ValueT, MessageT]:
    """Return what writes and what reads a noun.

    Args:
        value: The dataclass.
        message: The message.
        where: The path of the message where its reader is given none.
        unread: Fields of the message that this version neither writes nor reads.
        special: The fields that need more than the contract says of them.

    Raises:
        TypeError: A field of the dataclass or of the message is forgotten.
    """
    known: Mapping[str, FieldDescriptor] = cast("Any", message).DESCRIPTOR.fields_by_name
    names = [field.name for field in dataclasses.fields(cast("Any", value))]
    forgotten = {name for name in names if name not in special and name not in known}
    table = {
        name: special.get(name) or _of_contract(known[name])
        for name in names
        if name not in forgotten
    }
    covered = {*unread}
    for name, field in table.items():
        covered.update((name,) if field is None or field.names is None else field.names)
    forgotten |= (set(special) - set(names)) | (set(known) ^ covered)
    if forgotten:
        raise TypeError(f"{value.__name__} and its message differ in {sorted(forgotten)}")
    copied = [name for name, field in table.items() if field is None]
    more = [(name, field) for name, field in table.items() if field is not None]
    written = [(name, field.write) for name, field in more if field.names is None]
    spread = [(name, field.write) for name, field in more if field.names and field.write]

    def encode(noun: ValueT) -> MessageT:
        given = {name: getattr(noun, name) for name in copied}
        for name, write in written:
            one = getattr(noun, name)
            given[name] = one if write is None else write(one)
        for name, write in spread:
            given.update(write(getattr(noun, name)))
        return message(**given)

    def decode(message: MessageT, path: str = where) -> ValueT:
        given = {name: getattr(message, name) for name in copied}
        for name, field in more:
            given[name] = field.read(message, path, name)
        return value(**given)

    return NounCodec(encode, decode)


def _of_contract(field: FieldDescriptor) -> FieldCodec | None:
    """Return how a field is read of which the contract says enough; None where it is only copied."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return FieldCodec(lambda message, _, name: fields.strings(getattr(message, name)), dict)
    if field.is_repeated:
        return FieldCodec(lambda message, _, name: tuple(getattr(message, name)))
    if field.message_type is not None and field.message_type.full_name.endswith(".Timestamp"):
        return FieldCodec(
            lambda message, path, name: fields.moment(message, name, path), fields.encode_time
        )
    if field.message_type is not None or field.enum_type is not None:
        raise TypeError(f"{field.full_name} needs a place in the table of its codec")
    if field.has_presence:
        return FieldCodec(
            lambda message, _, name: getattr(message, name) if message.HasField(name) else None
        )
    return None


# ---- what stands in a table ---------------------------------------------------------------------


def checked(check: Check, write: Callable[[Any], Any] | None = None) -> FieldCodec:
    """Return a field that is read through a check."""
    return FieldCodec(
        lambda message, path, name: check(getattr(message, name), at(path, name)), write
    )


def identifier(what: str) -> FieldCodec:
    """Return an id; `what` says of which thing."""
    return checked(lambda value, path: fields.identifier(what, value, path))


def count(most: int, unset: int = 0) -> FieldCodec:
    """Return a whole number from 0 to `most`, inclusive; 0 is `unset`."""
    return checked(lambda value, path: fields.count(value or unset, most, path))


def number(most: float, unset: float = 0.0) -> FieldCodec:
    """Return a number from 0 to `most`, inclusive; 0 is `unset`."""
    return checked(lambda value, path: fields.number(value, most, path) or unset)


def duration(unset: float = 0.0) -> FieldCodec:
    """Return so many seconds; 0 is `unset`."""
    return checked(lambda value, path: fields.duration(value, unset, path))


def one(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return an enumeration or another noun, which is read from its defaults where it is unset."""
    return checked(pair[1], pair[0])


def maybe(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return another noun, or None where it is unset."""
    write, read = pair
    return FieldCodec(
        lambda message, path, name: (
            read(getattr(message, name), at(path, name)) if message.HasField(name) else None
        ),
        lambda value: None if value is None else write(value),
    )


def each(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return a tuple of other nouns."""
    write, read = pair
    return checked(
        lambda items, path: fields.each(items, path, read),
        lambda values: [write(value) for value in values],
    )


def elsewhere(unset: object, *names: str) -> FieldCodec:
    """Return a field that the caller of the codec writes and reads; it stands in `names`, if any."""
    return FieldCodec(lambda _message, _path, _name: unset, None, names)


def spread(write: Callable[[Any], Mapping[str, Any]], read: Check, *names: str) -> FieldCodec:
    """Return a field that is several fields of the message; `read` gets the message and its path."""
    return FieldCodec(lambda message, path, _name: read(message, path), write, names)


def renamed(name: str) -> FieldCodec:
    """Return a field that has another name in the message."""
    return spread(lambda value: {name: value}, lambda message, _path: getattr(message, name), name)


def enumeration(
    kind: type[EnumT], contract: Any, where: str, what: str = ""
) -> NounCodec[EnumT, Any]:
    """Return what writes and what reads an enumeration.

    One with numbers of its own has those of the contract. One without has the names of the contract,
    and begins with what an unset field means.

    Args:
        kind: The enumeration.
        contract: Its counterpart.
        where: The path of the field where its reader is given none.
        what: What it is called in refusals; by default its name (`JobState`: "job state").
    """
    what = what or re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
    prefix = contract.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    numbered = issubclass(cast("type[object]", kind), int)
    numbers = {
        member: member.value if numbered else contract.Value(prefix + member.name)
        for member in kind
    }
    members = {number: member for member, number in numbers.items()}
    known = ", ".join(map(str, members))
    if not numbered:
        members[0] = next(iter(kind))

    def decode(message: int, path: str = where) -> EnumT:
        if message not in members:
            raise WireError(path, f"{message} is not a {what}; this version knows {known}")
        return members[message]

    return NounCodec(numbers.__getitem__, decode)
