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
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor

from shoal.wire import fields
from shoal.wire.fields import WireError, at

ValueT = TypeVar("ValueT")
ValueT_co = TypeVar("ValueT_co", covariant=True)
MessageT = TypeVar("MessageT")
MessageT_contra = TypeVar("MessageT_contra", contravariant=True)
EnumT = TypeVar("EnumT", bound=enum.Enum)
_ALIKE_MAX: Final = 256
_ALIKE_BYTES_MAX: Final = 16 << 10

Check = Callable[[Any, str], Any]
"""Takes what a message holds and its path; returns the value, or raises `WireError`."""
Given = Callable[[Any], dict[str, Any]]
"""Returns what a message is made of that says a noun: its fields, but those that say nothing."""


class Decode(Protocol[MessageT_contra, ValueT_co]):
    """Reads a message that stands at `path`."""

    def __call__(self, message: MessageT_contra, path: str = ...) -> ValueT_co:
        """Return the noun.

        Raises:
            WireError: A field breaks the contract.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Encode(Generic[MessageT]):
    """Writes a noun.

    A message that carries it takes what `given` returns, so that all of it is made in one go: to put
    one message into another writes it out and reads it again.
    """

    message: type[MessageT]
    given: Given

    def __call__(self, noun: Any) -> MessageT:
        """Return the message."""
        return self.message(**self.given(noun))


class NounCodec(NamedTuple, Generic[ValueT, MessageT]):
    """What writes a noun and what reads it."""

    encode: Callable[[ValueT], MessageT]
    decode: Decode[MessageT, ValueT]


@dataclasses.dataclass(frozen=True, slots=True)
class FieldCodec:
    """How a field of a noun is written and read.

    `read` gets the message, its path, and the name of the field; a `check` in its place gets what the
    field holds, and its path. What they return depends on nothing else. `write` gets the value of the
    field, but none that is false: that is left out, unless the field has a presence. With `names` the
    message has other fields in its place, or none, and `write` returns a mapping with a value for each
    of them.
    """

    read: Callable[[Any, str, str], Any] | None = None
    write: Callable[[Any], Any] | None = None
    names: tuple[str, ...] | None = None
    check: Check | None = None


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
        covered.update((name,) if field.names is None else field.names)
    forgotten |= (set(special) - set(names)) | (set(known) ^ covered)
    if forgotten:
        raise TypeError(f"{value.__name__} and its message differ in {sorted(forgotten)}")
    return NounCodec(Encode(message, _given(table, known)), _decode(value, table, known, where))


def _given(table: Mapping[str, FieldCodec], known: Mapping[str, FieldDescriptor]) -> Given:
    whole = [(name, field.write) for name, field in table.items() if field.names is None]
    spread = [(name, field.write) for name, field in table.items() if field.names and field.write]
    plain = [(name, write) for name, write in whole if not known[name].has_presence]
    # A field that has a presence may be set to nothing: None alone leaves it out.
    present = [(name, write or _as_it_is) for name, write in whole if known[name].has_presence]
    names, writes = [name for name, _ in plain], [write for _, write in plain]
    values_of = _values_of(names)

    def given(noun: Any) -> dict[str, Any]:
        found = {
            name: one if write is None else write(one)
            for name, write, one in zip(names, writes, values_of(noun), strict=True)
            if one
        }
        for name, write in present:
            if (one := write(getattr(noun, name))) is not None:
                found[name] = one
        for name, write in spread:
            found.update(write(getattr(noun, name)))
        return found

    return given


def _decode(
    value: type[ValueT],
    table: Mapping[str, FieldCodec],
    known: Mapping[str, FieldDescriptor],
    where: str,
) -> Decode[Any, ValueT]:
    taken: list[str] = []
    checks: list[tuple[int, Check, str]] = []
    reads: list[tuple[int, Callable[[Any, str, str], Any], str]] = []
    for place, (name, field) in enumerate(table.items()):
        if field.read is not None:
            reads.append((place, field.read, name))
        elif field.check is not None and _is_one_message(known[name]):
            reads.append((place, _unless_empty(field.check), name))
        else:
            taken.append(name)
            if field.check is not None:
                checks.append((place, field.check, name))
    values_of = _values_of(taken)

    def decode(message: Any, path: str = where) -> ValueT:
        values = [*values_of(message)]
        try:
            for place, read, name in reads:  # from the first on, so that each gets its place
                values.insert(place, read(message, "", name))
            for place, check, name in checks:
                values[place] = check(values[place], name)
        except WireError as error:
            raise error.within(path) from None
        return value(*values)

    return decode


def _values_of(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads so many attributes, as a tuple."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda holder: tuple(getattr(holder, name) for name in names)


def _is_one_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.is_repeated


def _as_it_is(value: object) -> object:
    return value


def _unless_empty(check: Check) -> Callable[[Any, str, str], Any]:
    """Return what reads a message in a field; what an empty one means is read once."""
    empty: list[Any] = []

    def read(message: Any, path: str, name: str) -> Any:
        said = getattr(message, name)
        if said.ByteSize():
            return check(said, at(path, name))
        if not empty:
            empty.append(check(said, at(path, name)))
        return empty[0]

    return read


def _of_contract(field: FieldDescriptor) -> FieldCodec:
    """Return how a field is read of which the contract says enough."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return FieldCodec(write=dict, check=lambda items, _path: fields.strings(items))
    if field.is_repeated:
        return FieldCodec(check=lambda items, _path: tuple(items))
    if field.message_type is not None and field.message_type.full_name.endswith(".Timestamp"):
        return FieldCodec(
            lambda message, path, name: fields.moment(message, name, path), fields.given_time
        )
    if field.message_type is not None or field.enum_type is not None:
        raise TypeError(f"{field.full_name} needs a place in the table of its codec")
    if field.has_presence:
        return FieldCodec(
            lambda message, _path, name: getattr(message, name) if message.HasField(name) else None
        )
    return FieldCodec()


def given_of(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what a message that carries a noun is given of it."""
    return encode.given if isinstance(encode, Encode) else encode


# ---- what stands in a table ---------------------------------------------------------------------


def checked(check: Check, write: Callable[[Any], Any] | None = None) -> FieldCodec:
    """Return a field that is read through a check."""
    return FieldCodec(write=write, check=check)


def identifier(what: str) -> FieldCodec:
    """Return an id; `what` says of which thing."""
    return checked(lambda value, path: fields.identifier(what, value, path))


def count(most: int, unset: int = 0) -> FieldCodec:
    """Return a whole number from 0 to `most`, inclusive; 0 is `unset`."""

    def check(value: int, path: str) -> int:
        return value or unset if 0 <= value <= most else fields.count(value, most, path)

    return checked(check)


def number(most: float, unset: float = 0.0) -> FieldCodec:
    """Return a number from 0 to `most`, inclusive; 0 is `unset`."""
    return checked(lambda value, path: fields.number(value, most, path) or unset)


def duration(unset: float = 0.0) -> FieldCodec:
    """Return so many seconds; 0 is `unset`."""
    return checked(lambda value, path: fields.duration(value, unset, path))


def one(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return an enumeration or another noun, which is read from its defaults where it is unset."""
    return checked(pair[1], given_of(pair[0]))


def maybe(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return another noun, or None where it is unset."""
    write, read = given_of(pair[0]), pair[1]
    return FieldCodec(
        lambda message, path, name: (
            read(getattr(message, name), at(path, name)) if message.HasField(name) else None
        ),
        lambda value: None if value is None else write(value),
    )


def each(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return a tuple of other nouns."""
    write, read = given_of(pair[0]), pair[1]
    return checked(
        lambda items, path: fields.each(items, path, read),
        lambda values: [write(value) for value in values],
    )


def alike(pair: NounCodec[ValueT, MessageT], kind: type[MessageT]) -> NounCodec[ValueT, MessageT]:
    """Return the codec of a noun that many messages carry alike: the same bytes are read once.

    Some hundred are remembered, none of more than `_ALIKE_BYTES_MAX`.
    """
    encode, decode = pair

    @lru_cache(_ALIKE_MAX)
    def of_bytes(data: bytes) -> ValueT:
        return decode(cast("Any", kind).FromString(data), "")

    def read(message: Any, path: str = "") -> ValueT:
        data = message.SerializeToString()
        if len(data) > _ALIKE_BYTES_MAX:
            return decode(message, path)
        try:
            return of_bytes(data)
        except WireError as error:
            raise error.within(path) from None

    return NounCodec(encode, read)


def written_once(pair: NounCodec[ValueT, MessageT]) -> NounCodec[ValueT, MessageT]:
    """Return the codec of a noun that lives long and is written often: the same object is written once.

    It is for tables: what it writes is shared, and copied into the message that carries it.
    """
    encode, decode = pair
    # By identity, since not every noun has a hash; what is remembered keeps its own.
    known: dict[int, tuple[ValueT, MessageT]] = {}

    def write(noun: ValueT) -> MessageT:
        found = known.get(id(noun))
        if found is not None:
            return found[1]
        made = encode(noun)
        if cast("Any", made).ByteSize() <= _ALIKE_BYTES_MAX:
            if len(known) >= _ALIKE_MAX:
                known.clear()
            known[id(noun)] = (noun, made)
        return made

    return NounCodec(write, decode)


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
    # One without numbers by identity: the hash of such a member is a function of Python.
    given = {id(member): number for member, number in numbers.items()}
    known = ", ".join(map(str, members))
    if not numbered:
        members[0] = next(iter(kind))

    def encode(member: EnumT) -> Any:
        return given[id(member)]

    def decode(message: int, path: str = where) -> EnumT:
        member = members.get(message)
        if member is None:
            raise WireError(path, f"{message} is not a {what}; this version knows {known}")
        return member

    return NounCodec(numbers.__getitem__ if numbered else encode, decode)
