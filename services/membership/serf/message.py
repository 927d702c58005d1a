"""Serf's messages inside memberlist's user messages: `type | msgpack map`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from typing import Any, Final, cast

from services.membership.dialect import StreamUnpacker, Value, pack, unpack
from services.membership.fields import (
    U16_MAX,
    U32_MAX,
    U64_MAX,
    fields,
    items,
    mapping,
    number,
    octets,
    text,
)
from services.membership.layout import FLAG, TEXT, FieldKind, MessageLayout, integer, packed
from services.membership.refusal import DropReason, RefusedError

_MEMBERS_MAX: Final = 1024 * 1024
_EVENT_SLOTS_MAX: Final = 4096
_EVENT_BYTES_MAX: Final = 9 * 1024
_QUERY_BYTES_MAX: Final = 64 * 1024
_FILTERS_MAX: Final = 64


class SerfType(IntEnum):
    """First byte of a Serf message."""

    LEAVE = 0
    JOIN = 1
    PUSH_PULL = 2
    USER_EVENT = 3
    QUERY = 4
    QUERY_RESPONSE = 5
    CONFLICT_RESPONSE = 6
    KEY_REQUEST = 7
    KEY_RESPONSE = 8
    RELAY = 9


@dataclass(frozen=True, slots=True)
class LeaveIntent:
    """`node` leaves, or an operator declares a failed one gone."""

    time: int
    node: str
    prune: bool = False


@dataclass(frozen=True, slots=True)
class JoinIntent:
    """`node` joined, or refutes a leave intent."""

    time: int
    node: str


@dataclass(frozen=True, slots=True)
class UserEvent:
    """A named payload for all members; `coalesce` lets later ones of the name replace it."""

    time: int
    name: str
    payload: bytes
    coalesce: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A question to all or some members, answered straight to `host:port`."""

    time: int
    identity: int
    host: bytes
    port: int
    source: str
    filters: tuple[bytes, ...]
    flags: int
    relay_factor: int
    timeout_seconds: float
    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class QueryResponse:
    """An answer, or with flag 1 the mere acknowledgement of a query."""

    time: int
    identity: int
    sender: str
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Relayed:
    """A message to be passed on to `host:port`, for answers that might get lost otherwise."""

    host: bytes
    port: int
    name: str
    message: bytes


@dataclass(frozen=True, slots=True)
class UserState:
    """Serf's part of a push/pull exchange.

    Attributes:
        time: Member clock.
        status_times: Status time of each member.
        left: Names of members that left.
        event_time: Event clock.
        events: Recent events by their time.
        query_time: Query clock.
    """

    time: int
    status_times: Mapping[str, int] = field(default_factory=dict[str, int])
    left: tuple[str, ...] = ()
    event_time: int = 0
    events: tuple[UserEvent, ...] = ()
    query_time: int = 0


SerfMessage = LeaveIntent | JoinIntent | UserEvent | Query | QueryResponse | Relayed
"""What travels in user messages."""


def _signed(value: object, name: str) -> int:
    """Check a signed 64-bit field; nil is 0."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedError(
            DropReason.MALFORMED, f"{name} is {type(value).__name__}, not an integer"
        )
    return int(value)


_TIME: Final = ("LTime", integer(U64_MAX))
_ID: Final = ("ID", integer(U32_MAX))
_NODE: Final = ("Node", TEXT)
_NAME: Final = ("Name", TEXT)
_FLAGS: Final = ("Flags", integer(U32_MAX))
_QUERY_PAYLOAD: Final = ("Payload", packed(_QUERY_BYTES_MAX))
_FILTERS: Final = FieldKind(
    lambda value, name: tuple(
        octets(item, 4096, name) for item in items(value, _FILTERS_MAX, name)
    ),
    lambda filters: list(filters) or None,
)
_SECONDS: Final = FieldKind(
    lambda value, name: _signed(value, name) / 1e9, lambda seconds: round(seconds * 1e9)
)
_LAYOUTS: Final[dict[type[SerfMessage], tuple[int, MessageLayout[Any]]]] = {
    LeaveIntent: (SerfType.LEAVE, MessageLayout(LeaveIntent, _TIME, _NODE, ("Prune", FLAG))),
    JoinIntent: (SerfType.JOIN, MessageLayout(JoinIntent, _TIME, _NODE)),
    UserEvent: (
        SerfType.USER_EVENT,
        MessageLayout(UserEvent, _TIME, _NAME, ("Payload", packed(_EVENT_BYTES_MAX)), ("CC", FLAG)),
    ),
    Query: (
        SerfType.QUERY,
        MessageLayout(
            Query,
            _TIME,
            _ID,
            ("Addr", packed(16)),
            ("Port", integer(U16_MAX)),
            ("SourceNode", TEXT),
            ("Filters", _FILTERS),
            _FLAGS,
            ("RelayFactor", integer(255)),
            ("Timeout", _SECONDS),
            _NAME,
            _QUERY_PAYLOAD,
        ),
    ),
    QueryResponse: (
        SerfType.QUERY_RESPONSE,
        MessageLayout(QueryResponse, _TIME, _ID, ("From", TEXT), _FLAGS, _QUERY_PAYLOAD),
    ),
}
_BY_TYPE: Final = dict(_LAYOUTS.values())


def _status_times(value: object, name: str) -> dict[str, int]:
    pairs = mapping(value, name).items()
    return {text(key, "name"): number(time, U64_MAX, "LTime") for key, time in pairs}


def _events(value: object, name: str) -> tuple[UserEvent, ...]:
    """Read events, which stand together by their time."""
    found: list[UserEvent] = []
    for slot in items(value, _EVENT_SLOTS_MAX, name):
        if slot is None:
            continue
        at, rows = fields(slot, (b"LTime", b"Events"))
        time = number(at, U64_MAX, "LTime")
        for row in items(rows, _EVENT_SLOTS_MAX, name):
            called, payload = fields(row, (b"Name", b"Payload"))
            data = octets(payload, _EVENT_BYTES_MAX, "Payload")
            found.append(UserEvent(time, text(called, "Name"), data))
            if len(found) > _EVENT_SLOTS_MAX:
                raise RefusedError(DropReason.TOO_BIG, "Events holds over 4096 events")
    return tuple(found)


def _by_time(events: tuple[UserEvent, ...]) -> Value:
    slots: dict[int, list[Value]] = {}
    for event in events:
        row: dict[str, Value] = {"Name": event.name, "Payload": event.payload}
        slots.setdefault(event.time, []).append(row)
    return [{"Events": rows, "LTime": time} for time, rows in slots.items()] or None


_NAMES: Final = FieldKind(
    lambda value, name: tuple(text(item, "name") for item in items(value, _MEMBERS_MAX, name)),
    lambda names: list(names) or None,
)
_USER_STATE: Final = MessageLayout(
    UserState,
    _TIME,
    ("StatusLTimes", FieldKind(_status_times, dict)),
    ("LeftMembers", _NAMES),
    ("EventLTime", integer(U64_MAX)),
    ("Events", FieldKind(_events, _by_time)),
    ("QueryLTime", integer(U64_MAX)),
)


def decode_serf(payload: bytes) -> SerfMessage | None:
    """Read a Serf message; None for types that only travel elsewhere or that are unknown.

    Raises:
        RefusedError: Empty or malformed.
    """
    if not payload:
        raise RefusedError(DropReason.EMPTY, "empty Serf message")
    kind = payload[0]
    body = memoryview(payload)[1:]
    if kind == SerfType.RELAY:
        return _relayed(body)
    layout = _BY_TYPE.get(kind)
    return None if layout is None else cast("SerfMessage", layout.read(unpack(body)))


def _relayed(body: memoryview) -> Relayed:
    # The header's own length is known only to its decoder: find where the value ends.
    unpacker = StreamUnpacker()
    unpacker.feed(bytes(body))
    there, value = unpacker.value()
    if not there:
        raise RefusedError(DropReason.TRUNCATED, "relay header is cut short")
    address, name = fields(value, (b"DestAddr", b"DestName"))
    host, port = fields(address, (b"IP", b"Port"))
    return Relayed(
        octets(host, 16, "IP"),
        number(port, U16_MAX, "Port"),
        text(name, "DestName"),
        bytes(body[unpacker.position :]),
    )


def encode_serf(message: SerfMessage) -> bytes:
    """Write a Serf message."""
    if isinstance(message, Relayed):
        address: dict[str, Value] = {"IP": message.host, "Port": message.port, "Zone": ""}
        header = pack({"DestAddr": address, "DestName": message.name})
        return bytes((SerfType.RELAY,)) + header + message.message
    kind, layout = _LAYOUTS[type(message)]
    return bytes((kind,)) + pack(layout.body(message))


def encode_user_state(state: UserState) -> bytes:
    """Write Serf's part of a push/pull exchange."""
    return bytes((SerfType.PUSH_PULL,)) + pack(_USER_STATE.body(state))


def decode_user_state(data: bytes) -> UserState | None:
    """Read Serf's part of a push/pull exchange; None when there is none.

    Raises:
        RefusedError: Malformed.
    """
    if not data:
        return None
    if data[0] != SerfType.PUSH_PULL:
        raise RefusedError(DropReason.UNKNOWN_TYPE, f"user state of type {data[0]}")
    return _USER_STATE.read(unpack(memoryview(data)[1:]))


def slices(state: UserState, size: int) -> Iterator[UserState]:
    """Cut a user state into parts that can be merged one after another.

    The first holds the clocks, the events and the members that left; the others up to `size`
    status times each.
    """
    left = {name: state.status_times.get(name, 0) for name in state.left}
    yield UserState(state.time, left, state.left, state.event_time, state.events, state.query_time)
    rest = iter(state.status_times.items())
    while part := dict(islice(rest, size)):
        yield UserState(0, {name: time for name, time in part.items() if name not in left})
