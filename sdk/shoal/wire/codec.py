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
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import FunctionType, MappingProxyType, NoneType
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from shoal.wire import fields
from shoal.wire.fields import WireError

ValueT = TypeVar("ValueT")
ValueT_co = TypeVar("ValueT_co", covariant=True)
MessageT = TypeVar("MessageT")
MessageT_contra = TypeVar("MessageT_contra", contravariant=True)
EnumT = TypeVar("EnumT", bound=enum.Enum)
_ALIKE_MAX: Final = 256
_ALIKE_BYTES_MAX: Final = 16 << 10
_UNCHANGING: Final = frozenset(
    {str, bytes, int, float, bool, NoneType, tuple, frozenset, MappingProxyType}
)
"""Types of what may be returned again and again; the nouns are unchanging, too."""

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
class Members(Generic[EnumT]):
    """Reads an enumeration.

    Attributes:
        known: what each number means.
        numbered: whether the members are their numbers, so that a message takes them as they are.
        what: what the enumeration is called in refusals.
        where: the path of the field where none is given.
    """

    known: Mapping[int, EnumT]
    numbered: bool
    what: str
    where: str

    def __call__(self, message: int, path: str | None = None) -> EnumT:
        """Return the member.

        Raises:
            WireError: This version knows none with that number.
        """
        member = self.known.get(message)
        if member is None:
            known = ", ".join(map(str, self.known))
            said = f"{message} is not a {self.what}; this version knows {known}"
            raise WireError(self.where if path is None else path, said)
        return member


@dataclasses.dataclass(frozen=True, slots=True)
class FieldCodec:
    """How a field of a noun is written and read.

    `read` gets the message, its path, and the name of the field; a `check` in its place gets what the
    field holds, and its path. What they return depends on nothing else. `write` gets the value of the
    field, but none that is false: that is left out, unless the field has a presence, where None is.
    With `names` the message has other fields in its place, or none; `write` returns a tuple with a
    value for each of them, and `check` gets the whole message.

    Attributes:
        each: whether `write` and `check` are for the items of a list.
        maybe: whether a message that is unset is None, and not its defaults.
        known: of an enumeration, what each number means, so that `check` sees only others.
    """

    read: Callable[[Any, str, str], Any] | None = None
    write: Callable[[Any], Any] | None = None
    names: tuple[str, ...] | None = None
    check: Check | None = None
    each: bool = False
    maybe: bool = False
    known: Mapping[int, Any] | None = None


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
    given = _given(value, table, known)
    return NounCodec(Encode(message, given), _decode(value, table, known, where))


def _given(
    value: type[ValueT], table: Mapping[str, FieldCodec], known: Mapping[str, FieldDescriptor]
) -> Given:
    """Return what writes the fields of a noun, one after another; what says nothing costs a look at it."""

    def text(scope: dict[str, Any]) -> Iterable[str]:
        yield "def function(noun):"
        yield " made = {}"
        for one in dataclasses.fields(cast("Any", value)):
            yield from _written(one.name, table[one.name], known, one.default, scope)
        yield " return made"

    given: Given = _put_together(value.__name__, text, {})
    return given


def _decode(
    value: type[ValueT],
    table: Mapping[str, FieldCodec],
    known: Mapping[str, FieldDescriptor],
    where: str,
) -> Decode[Any, ValueT]:
    def text(scope: dict[str, Any]) -> Iterable[str]:
        yield "def function(message, path=where):"
        yield " try: return value("
        for name, field in table.items():
            yield f"  {_read(name, field, known, scope)},"
        yield " )"
        yield " except WireError as error: raise error.within(path) from None"

    scope = {"value": value, "where": where, "WireError": WireError, "each": fields.each}
    decode: Decode[Any, ValueT] = _put_together(value.__name__, text, scope)
    return decode


def _put_together(
    name: str, text: Callable[[dict[str, Any]], Iterable[str]], scope: dict[str, Any]
) -> Any:
    """Return a function that is put together when it is called first, from lines that name what is in its scope.

    Messages are much of what a controller does, and a loop over fields and their checks takes three times
    as long as their lines one after another. Most programs use few of all codecs, so none is made in advance.
    """

    def first(*given: Any, **named: Any) -> Any:
        source = "\n".join(text(scope))
        exec(compile(source, f"<codec of {name}>", "exec"), scope)  # noqa: S102 -- text of our own
        made: FunctionType = scope["function"]
        # A codec that has the function already calls these lines themselves from now on.
        function.__defaults__, function.__code__ = made.__defaults__, made.__code__
        return function(*given, **named)

    scope["first"] = first
    function = FunctionType(_call_first.__code__, scope)
    return function


def _call_first(*given: Any, **named: Any) -> Any:
    return first(*given, **named)  # type: ignore[name-defined]  # noqa: F821 -- of the scope that it is given


def _written(
    name: str,
    field: FieldCodec,
    known: Mapping[str, FieldDescriptor],
    default: object,
    scope: dict[str, Any],
) -> Iterable[str]:
    """Return the lines that write a field."""
    if field.names is not None:
        if field.write is None or not field.names:
            return
        scope[f"write_{name}"] = field.write
        places = "".join(f"made['{one}'], " for one in field.names)
        yield f" {places}= write_{name}(noun.{name})"
        return
    scope[f"write_{name}"] = field.write
    said = "one" if field.write is None else f"write_{name}(one)"
    if field.each:
        said = f"[*map(write_{name}, one)]"
    if not known[name].has_presence:
        yield f" if one := noun.{name}: made['{name}'] = {said}"
        return
    if field.write is not None and default is not None and default is not dataclasses.MISSING:
        # A noun that is the default says always the same.
        scope |= {f"default_{name}": default, f"unsaid_{name}": field.write(default)}
        said = f"unsaid_{name} if one is default_{name} else {said}"
    yield f" if (one := noun.{name}) is not None: made['{name}'] = {said}"


def _read(
    name: str, field: FieldCodec, known: Mapping[str, FieldDescriptor], scope: dict[str, Any]
) -> str:
    """Return the expression that reads a field."""
    held = f"message.{name}"
    scope |= {f"read_{name}": field.read, f"check_{name}": field.check}
    if field.read is not None:
        return f"read_{name}(message, '', '{name}')"
    if field.names is not None:
        return held if field.check is None else f"check_{name}(message, '')"
    if field.maybe:
        found = held if field.check is None else f"check_{name}({held}, '{name}')"
        return f"{found} if message.HasField('{name}') else None"
    if field.known is not None:
        scope[f"known_{name}"] = field.known
        return f"known_{name}.get({held}) or check_{name}({held}, '{name}')"
    if field.check is None:
        return f"tuple(one) if (one := {held}) else ()" if known[name].is_repeated else held
    found = f"check_{name}(one, '{name}')"
    if field.each:
        found = f"each(one, '{name}', check_{name})"
    unset = _unset(field, known[name], name)
    if unset is None:
        return found.replace("one,", f"{held},", 1)
    scope[f"unset_{name}"] = unset[0]
    if not _is_one_message(known[name]):
        return f"{found} if (one := {held}) else unset_{name}"
    there = f"message.HasField('{name}') and (one := {held}).ByteSize()"
    return f"{found} if {there} else unset_{name}"


def _unset(field: FieldCodec, known: FieldDescriptor, name: str) -> tuple[object] | None:
    """Return what a field means in which nothing is, as it is read once; None if that has to be read each time."""
    if field.each:
        return ((),)
    check = cast("Check", field.check)
    nothing: Any = known.default_value
    if known.is_repeated:
        nothing = {} if _is_map(known) else ()
    elif known.message_type is not None:
        nothing = GetMessageClass(known.message_type)()
    try:
        found = check(nothing, name)
    except WireError:
        return None
    return (found,) if _is_one_message(known) or type(found) in _UNCHANGING else None


def _is_one_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.is_repeated


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _of_contract(field: FieldDescriptor) -> FieldCodec:
    """Return how a field is read of which the contract says enough."""
    if _is_map(field):
        return FieldCodec(write=dict, check=lambda items, _path: fields.strings(items))
    if field.is_repeated:
        return FieldCodec()
    if field.message_type is not None and field.message_type.full_name.endswith(".Timestamp"):
        return FieldCodec(write=fields.given_time, check=fields.decode_time, maybe=True)
    if field.message_type is not None or field.enum_type is not None:
        raise TypeError(f"{field.full_name} needs a place in the table of its codec")
    return FieldCodec(maybe=field.has_presence)


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
    encode, decode = pair
    if isinstance(decode, Members):
        write = None if decode.numbered else encode
        return FieldCodec(write=write, check=decode, known=decode.known)
    return checked(decode, given_of(encode))


def maybe(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return another noun, or None where it is unset."""
    return FieldCodec(write=given_of(pair[0]), check=pair[1], maybe=True)


def each(pair: NounCodec[Any, Any]) -> FieldCodec:
    """Return a tuple of other nouns."""
    return FieldCodec(write=given_of(pair[0]), check=pair[1], each=True)


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


def spread(write: Callable[[Any], tuple[Any, ...]], read: Check, *names: str) -> FieldCodec:
    """Return a field that is several fields of the message.

    `write` returns a value for each of them, None to leave one unset; `read` gets the message and its path.
    """
    return FieldCodec(None, write, names, read)


def renamed(name: str) -> FieldCodec:
    """Return a field that has another name in the message."""
    return spread(lambda value: (value,), lambda message, _path: getattr(message, name), name)


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
    if not numbered:
        members[0] = next(iter(kind))
    return NounCodec(numbers.__getitem__, Members(members, numbered, what, where))
