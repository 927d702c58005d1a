"""Messages to bytes and back, in memberlist's map dialect or in the compact one.

Every number is range-checked and every text bounded, so that a packet with false fields is refused
before any of it is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from services.membership.dialect import Value, pack, unpack
from services.membership.fields import (
    META_BYTES_MAX,
    U16_MAX,
    U32_MAX,
    fields,
    flag,
    number,
    octets,
)
from services.membership.layout import FLAG, HOST, TEXT, FieldKind, MessageLayout, integer, packed
from services.membership.message import (
    Ack,
    Alive,
    Dead,
    ErrorReply,
    IndirectPing,
    MessageType,
    Nack,
    PacketMessage,
    Ping,
    PushNodeState,
    Rumour,
    Suspect,
    SwimState,
    User,
    Versions,
)
from services.membership.refusal import DropReason, RefusedError

NODES_MAX: Final = 1024 * 1024
USER_STATE_BYTES_MAX: Final = 20 * 1024 * 1024
USER_MESSAGE_BYTES_MAX: Final = 20 * 1024 * 1024

_VERSIONS_BYTES: Final = 6
_TYPE_BYTES: Final[dict[int, bytes]] = {kind: bytes((kind,)) for kind in MessageType}
_HEADER: Final = (b"Nodes", b"UserStateLen", b"Join")
_COMPRESS: Final = (b"Algo", b"Buf")


@lru_cache(maxsize=1024)
def _versions(packed: bytes) -> Versions | None:
    """Read the six version bytes; empty is None.

    Raises:
        RefusedError: Between one and five bytes.
    """
    if not packed:
        return None
    if len(packed) < _VERSIONS_BYTES:
        raise RefusedError(DropReason.MALFORMED, f"Vsn has {len(packed)} bytes, fewer than 6")
    return Versions(*packed[:_VERSIONS_BYTES])


_U16: Final = integer(U16_MAX)
_U32: Final = integer(U32_MAX)
_STATE: Final = FieldKind(lambda value, name: SwimState(number(value, SwimState.LEFT, name)), int)
_VERSIONS: Final = FieldKind(
    lambda value, name: _versions(octets(value, 64, name)),
    lambda versions: b"" if versions is None else bytes(versions),
)
_SEQUENCE: Final = ("SeqNo", _U32)
_INCARNATION: Final = ("Incarnation", _U32)
_NODE: Final = ("Node", TEXT)
_SOURCE: Final = (("SourceAddr", HOST), ("SourcePort", _U16), ("SourceNode", TEXT))
_PLACE: Final = (("Addr", HOST), ("Port", _U16), ("Meta", packed(META_BYTES_MAX)))
_VSN: Final = ("Vsn", _VERSIONS)
_TARGET: Final = (("Target", HOST), ("Port", _U16), _NODE, ("Nack", FLAG))

_LAYOUTS: Final[dict[type[PacketMessage], tuple[int, MessageLayout[Any]]]] = {
    Ping: (MessageType.PING, MessageLayout(Ping, _SEQUENCE, _NODE, *_SOURCE)),
    IndirectPing: (
        MessageType.INDIRECT_PING,
        MessageLayout(IndirectPing, _SEQUENCE, *_TARGET, *_SOURCE),
    ),
    Ack: (MessageType.ACK, MessageLayout(Ack, _SEQUENCE, ("Payload", packed(U16_MAX)))),
    Nack: (MessageType.NACK, MessageLayout(Nack, _SEQUENCE)),
    Suspect: (MessageType.SUSPECT, MessageLayout(Suspect, _INCARNATION, _NODE, ("From", TEXT))),
    Alive: (MessageType.ALIVE, MessageLayout(Alive, _INCARNATION, _NODE, *_PLACE, _VSN)),
    Dead: (MessageType.DEAD, MessageLayout(Dead, _INCARNATION, _NODE, ("From", TEXT))),
}
_BY_TYPE: Final = dict(_LAYOUTS.values())
_NODE_STATE: Final = MessageLayout(
    PushNodeState, ("Name", TEXT), *_PLACE, _INCARNATION, ("State", _STATE), _VSN
)


def decode_body(kind: int, value: object) -> PacketMessage:
    """Build the message of type `kind` from its unpacked body.

    Raises:
        RefusedError: Unknown type, or a field is wrong.
    """
    layout = _BY_TYPE.get(kind)
    if layout is None:
        raise RefusedError(DropReason.UNKNOWN_TYPE, f"message type {kind}")
    message: PacketMessage = layout.read(value)
    return message


def decode(data: bytes) -> PacketMessage:
    """Read one plain message: its type byte and its body.

    Raises:
        RefusedError: Empty, unknown type, no msgpack, or a field is wrong.
    """
    if not data:
        raise RefusedError(DropReason.EMPTY, "empty message")
    kind = data[0]
    if kind == MessageType.USER:
        return User(data[1:])
    if kind not in _BY_TYPE:
        raise RefusedError(DropReason.UNKNOWN_TYPE, f"message type {kind}")
    return decode_body(kind, unpack(memoryview(data)[1:]))


def decode_node_state(value: object) -> PushNodeState:
    """Build one push/pull record from its unpacked body.

    Raises:
        RefusedError: A field is wrong.
    """
    return _NODE_STATE.read(value)


def decode_push_pull_header(value: object) -> tuple[int, int, bool]:
    """Read `(nodes, user_state_bytes, join)`, each within its bound.

    Raises:
        RefusedError: A count is negative or huge.
    """
    nodes, size, join = fields(value, _HEADER)
    return (
        number(nodes, NODES_MAX, "Nodes"),
        number(size, USER_STATE_BYTES_MAX, "UserStateLen"),
        flag(join, "Join"),
    )


def decode_user_header(value: object) -> int:
    """Read the length of a user message on a stream.

    Raises:
        RefusedError: Negative or over 20 MiB.
    """
    return number(fields(value, (b"UserMsgLen",))[0], USER_MESSAGE_BYTES_MAX, "UserMsgLen")


def decode_compress(value: object) -> bytes:
    """Read the compressed bytes of the unpacked body of a compress message.

    Raises:
        RefusedError: Not LZW, or malformed.
    """
    algorithm, compressed = fields(value, _COMPRESS)
    if number(algorithm, 255, "Algo") != 0:
        raise RefusedError(DropReason.BAD_COMPRESSION, f"unknown compression algorithm {algorithm}")
    return octets(compressed, USER_STATE_BYTES_MAX * 2, "Buf")


def _as_map(names: Sequence[bytes], row: Sequence[Value]) -> dict[bytes | str, Value]:
    """Build the map dialect's body: alphabetical, zero values left out (they decode as zero)."""
    pairs = sorted(zip(names, row, strict=True), key=_first)
    return {name: value for name, value in pairs if value}


def _first(pair: tuple[bytes, Value]) -> bytes:
    return pair[0]


def _as_array(row: Sequence[Value]) -> list[Value]:
    """Build the compact dialect's body: positional, trailing zero values cut off."""
    last = len(row)
    while last and not row[last - 1]:
        last -= 1
    return list(row[:last])


def _number_size(value: int) -> int:
    """Bytes of an unsigned integer in msgpack."""
    if value < 0x80:
        return 1
    if value <= 0xFF:
        return 2
    return 3 if value <= U16_MAX else 5


def _value_size(value: Value) -> int:
    """Bytes of a field's value in msgpack."""
    if isinstance(value, bool) or value is None:
        return 1
    if isinstance(value, int):
        return _number_size(value)
    if isinstance(value, str):
        count = len(value) if value.isascii() else len(value.encode("utf-8", "surrogateescape"))
    else:
        count = len(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    if count < 32:
        return 1 + count
    return 3 + count if count <= U16_MAX else 5 + count


class MessageCodec:
    """Encodes messages in one of the two dialects.

    Args:
        compact: Positional arrays instead of maps. All decoders seen from 2020 to 2026 accept
            them; maps are what a stranger expects, so they are the default.
    """

    def __init__(self, *, compact: bool = False) -> None:
        """Keep the dialect; rumours are encoded once and remembered."""
        self.compact = compact
        self._rumour = lru_cache(maxsize=8192)(self._encode)

    def encode(self, message: PacketMessage) -> bytes:
        """Encode a message, type byte first."""
        if isinstance(message, (Suspect, Alive, Dead)):
            return self._rumour(message)
        return self._encode(message)

    def _encode(self, message: PacketMessage) -> bytes:
        if isinstance(message, User):
            return _TYPE_BYTES[MessageType.USER] + message.payload
        kind, layout = _LAYOUTS[type(message)]
        return _TYPE_BYTES[kind] + self._body(layout.names, layout.row(message))

    def _body(self, names: Sequence[bytes], row: Sequence[Value]) -> bytes:
        return pack(_as_array(row) if self.compact else _as_map(names, row))

    def size(self, message: Rumour) -> int:
        """Count the bytes `encode` gives, without encoding."""
        _, layout = _LAYOUTS[type(message)]
        row = layout.row(message)
        if self.compact:
            return 2 + sum(map(_value_size, _as_array(row)))
        total = 2
        for name, value in zip(layout.names, row, strict=True):
            if value:
                total += 1 + len(name) + _value_size(value)
        return total

    def encode_node_state(self, state: PushNodeState) -> bytes:
        """Encode one push/pull record (no type byte)."""
        return self._body(_NODE_STATE.names, _NODE_STATE.row(state))

    def encode_push_pull_header(self, nodes: int, user_state_bytes: int, *, join: bool) -> bytes:
        """Encode the head of a push/pull stream, type byte first."""
        return _TYPE_BYTES[MessageType.PUSH_PULL] + self._body(
            _HEADER, (nodes, user_state_bytes, join)
        )

    def encode_user_stream(self, payload: bytes) -> bytes:
        """Encode a user message for a stream, with its length before it."""
        return _TYPE_BYTES[MessageType.USER] + pack({"UserMsgLen": len(payload)}) + payload

    def encode_error(self, error: ErrorReply) -> bytes:
        """Encode a stream's refusal."""
        return _TYPE_BYTES[MessageType.ERROR] + pack({"Error": error.error})
