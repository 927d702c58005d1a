"""Messages to bytes and back, in memberlist's map dialect or in the compact one.

Decoding is as tolerant as the real decoders were seen to be: maps or positional arrays, missing
and unknown fields, nil for zero, any integer form, `bin` as well as `raw`. Every number is
range-checked and every text bounded, so a lying packet is refused before anything is applied.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, assert_never

from services.membership.dialect import Value, pack, unpack
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

META_BYTES_MAX: Final = 512
"""Most bytes of `meta`, as upstream's MetaMaxSize."""
NAME_BYTES_MAX: Final = 1024
NODES_MAX: Final = 1024 * 1024
USER_STATE_BYTES_MAX: Final = 20 * 1024 * 1024
USER_MESSAGE_BYTES_MAX: Final = 20 * 1024 * 1024

_U16_MAX: Final = 0xFFFF
_U32_MAX: Final = 0xFFFFFFFF
_VERSIONS_BYTES: Final = 6

_TYPE_BYTES: Final = {kind: bytes((kind,)) for kind in MessageType}

_PING: Final = (b"SeqNo", b"Node", b"SourceAddr", b"SourcePort", b"SourceNode")
_INDIRECT: Final = (
    b"SeqNo",
    b"Target",
    b"Port",
    b"Node",
    b"Nack",
    b"SourceAddr",
    b"SourcePort",
    b"SourceNode",
)
_ACK: Final = (b"SeqNo", b"Payload")
_NACK: Final = (b"SeqNo",)
_SUSPECT: Final = (b"Incarnation", b"Node", b"From")
_ALIVE: Final = (b"Incarnation", b"Node", b"Addr", b"Port", b"Meta", b"Vsn")
_NODE_STATE: Final = (b"Name", b"Addr", b"Port", b"Meta", b"Incarnation", b"State", b"Vsn")
_HEADER: Final = (b"Nodes", b"UserStateLen", b"Join")
_COMPRESS: Final = (b"Algo", b"Buf")


def fields(value: object, names: Sequence[bytes]) -> list[object]:
    """Lay a decoded map or positional array out in the order of `names`, None where absent.

    Raises:
        RefusedError: The value is neither.
    """
    if isinstance(value, dict):
        return [value.get(name) for name in names]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(value, list):
        row: list[object] = list(value[: len(names)])  # pyright: ignore[reportUnknownArgumentType]
        row.extend([None] * (len(names) - len(row)))
        return row
    raise RefusedError(DropReason.MALFORMED, f"body is {type(value).__name__}, not a map or array")


def number(value: object, most: int, name: str) -> int:
    """Check an integer field against 0..`most`; nil is 0.

    Raises:
        RefusedError: Not an integer, or out of range.
    """
    if value is None:
        return 0
    if not isinstance(value, int):
        raise RefusedError(
            DropReason.MALFORMED, f"{name} is {type(value).__name__}, not an integer"
        )
    if not 0 <= value <= most:
        raise RefusedError(DropReason.OUT_OF_RANGE, f"{name} is outside 0..{most}")
    return int(value)


def octets(value: object, most: int, name: str) -> bytes:
    """Check a byte field against `most` bytes; nil is empty.

    Raises:
        RefusedError: Not bytes, or too long.
    """
    if value is None:
        return b""
    if isinstance(value, str):  # a new-specification `str8` never comes out as text here
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, list):
        value = _octets_of_list(value, name)  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(value, bytes):
        raise RefusedError(DropReason.MALFORMED, f"{name} is {type(value).__name__}, not bytes")
    if len(value) > most:
        raise RefusedError(DropReason.TOO_BIG, f"{name} has {len(value)} bytes, over {most}")
    return value


def _octets_of_list(value: list[object], name: str) -> bytes:
    """Accept an array of small integers where bytes are due, as newer Go decoders do."""
    try:
        return bytes(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError) as error:
        raise RefusedError(DropReason.MALFORMED, f"{name} is an array of non-bytes") from error


def text(value: object, name: str, most: int = NAME_BYTES_MAX) -> str:
    """Decode a text field; bytes that are not UTF-8 survive as surrogate escapes.

    Raises:
        RefusedError: Not text, or too long.
    """
    return octets(value, most, name).decode("utf-8", "surrogateescape")


def flag(value: object, name: str) -> bool:
    """Check a boolean field; nil is False.

    Raises:
        RefusedError: Not a boolean.
    """
    if value is None:
        return False
    if not isinstance(value, bool):
        raise RefusedError(DropReason.MALFORMED, f"{name} is {type(value).__name__}, not a boolean")
    return value


@lru_cache(maxsize=16384)
def host_to_octets(host: str) -> bytes:
    """Turn an address in text into 4 or 16 bytes; IPv4 always 4, empty stays empty.

    Upstream compares addresses byte by byte, so the v4-mapped form would be a conflict.

    Raises:
        ValueError: The text is no IP address.
    """
    return ipaddress.ip_address(host).packed if host else b""


@lru_cache(maxsize=16384)
def octets_to_host(packed: bytes) -> str:
    """Turn 0, 4 or 16 bytes into text; v4-mapped IPv6 becomes plain IPv4.

    Raises:
        RefusedError: Any other length.
    """
    if not packed:
        return ""
    try:
        address = ipaddress.ip_address(packed)
    except ValueError as error:
        raise RefusedError(
            DropReason.MALFORMED, f"address has {len(packed)} bytes, not 4 or 16"
        ) from error
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


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


def _decode_ping(value: object) -> Ping:
    seq, node, host, port, source = fields(value, _PING)
    return Ping(
        number(seq, _U32_MAX, "SeqNo"),
        text(node, "Node"),
        octets_to_host(octets(host, 16, "SourceAddr")),
        number(port, _U16_MAX, "SourcePort"),
        text(source, "SourceNode"),
    )


def _decode_indirect_ping(value: object) -> IndirectPing:
    seq, target, port, node, nack, host, source_port, source = fields(value, _INDIRECT)
    return IndirectPing(
        number(seq, _U32_MAX, "SeqNo"),
        text(node, "Node"),
        octets_to_host(octets(target, 16, "Target")),
        number(port, _U16_MAX, "Port"),
        flag(nack, "Nack"),
        octets_to_host(octets(host, 16, "SourceAddr")),
        number(source_port, _U16_MAX, "SourcePort"),
        text(source, "SourceNode"),
    )


def _decode_ack(value: object) -> Ack:
    seq, payload = fields(value, _ACK)
    return Ack(number(seq, _U32_MAX, "SeqNo"), octets(payload, _U16_MAX, "Payload"))


def _decode_nack(value: object) -> Nack:
    return Nack(number(fields(value, _NACK)[0], _U32_MAX, "SeqNo"))


def _decode_suspect(value: object) -> Suspect:
    incarnation, node, accuser = fields(value, _SUSPECT)
    return Suspect(
        number(incarnation, _U32_MAX, "Incarnation"), text(node, "Node"), text(accuser, "From")
    )


def _decode_dead(value: object) -> Dead:
    incarnation, node, accuser = fields(value, _SUSPECT)
    return Dead(
        number(incarnation, _U32_MAX, "Incarnation"), text(node, "Node"), text(accuser, "From")
    )


def _decode_alive(value: object) -> Alive:
    incarnation, node, host, port, meta, versions = fields(value, _ALIVE)
    return Alive(
        number(incarnation, _U32_MAX, "Incarnation"),
        text(node, "Node"),
        octets_to_host(octets(host, 16, "Addr")),
        number(port, _U16_MAX, "Port"),
        octets(meta, META_BYTES_MAX, "Meta"),
        _versions(octets(versions, 64, "Vsn")),
    )


_DECODERS: Final[dict[int, Callable[[object], PacketMessage]]] = {
    MessageType.PING: _decode_ping,
    MessageType.INDIRECT_PING: _decode_indirect_ping,
    MessageType.ACK: _decode_ack,
    MessageType.NACK: _decode_nack,
    MessageType.SUSPECT: _decode_suspect,
    MessageType.ALIVE: _decode_alive,
    MessageType.DEAD: _decode_dead,
}


def decode_body(kind: int, value: object) -> PacketMessage:
    """Build the message of type `kind` from its unpacked body.

    Raises:
        RefusedError: Unknown type, or a field is wrong.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise RefusedError(DropReason.UNKNOWN_TYPE, f"message type {kind}")
    return decoder(value)


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
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise RefusedError(DropReason.UNKNOWN_TYPE, f"message type {kind}")
    return decoder(unpack(memoryview(data)[1:]))


def decode_node_state(value: object) -> PushNodeState:
    """Build one push/pull record from its unpacked body.

    Raises:
        RefusedError: A field is wrong.
    """
    name, host, port, meta, incarnation, state, versions = fields(value, _NODE_STATE)
    return PushNodeState(
        text(name, "Name"),
        octets_to_host(octets(host, 16, "Addr")),
        number(port, _U16_MAX, "Port"),
        octets(meta, META_BYTES_MAX, "Meta"),
        number(incarnation, _U32_MAX, "Incarnation"),
        SwimState(number(state, SwimState.LEFT, "State")),
        _versions(octets(versions, 64, "Vsn")),
    )


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


def decode_compress(data: bytes | memoryview) -> bytes:
    """Read the compressed bytes of a compress message's body.

    Raises:
        RefusedError: Not LZW, or malformed.
    """
    algorithm, compressed = fields(unpack(data), _COMPRESS)
    if number(algorithm, 255, "Algo") != 0:
        raise RefusedError(DropReason.BAD_COMPRESSION, f"unknown compression algorithm {algorithm}")
    return octets(compressed, USER_STATE_BYTES_MAX * 2, "Buf")


def encode_compress(compressed: bytes) -> bytes:
    """Frame LZW bytes as a compress message."""
    return _TYPE_BYTES[MessageType.COMPRESS] + pack({"Algo": 0, "Buf": compressed})


def _row(message: PacketMessage) -> tuple[MessageType, tuple[bytes, ...], tuple[Value, ...]]:
    """List a message's fields in declaration order, for both dialects."""
    match message:
        case Ping():
            row: tuple[Value, ...] = (
                message.sequence,
                message.node,
                host_to_octets(message.source_host),
                message.source_port,
                message.source_node,
            )
            return MessageType.PING, _PING, row
        case Ack():
            return MessageType.ACK, _ACK, (message.sequence, message.payload)
        case Suspect():
            row = (message.incarnation, message.node, message.accuser)
            return MessageType.SUSPECT, _SUSPECT, row
        case Alive():
            row = (
                message.incarnation,
                message.node,
                host_to_octets(message.host),
                message.port,
                message.meta,
                bytes(message.versions) if message.versions is not None else b"",
            )
            return MessageType.ALIVE, _ALIVE, row
        case Dead():
            row = (message.incarnation, message.node, message.accuser)
            return MessageType.DEAD, _SUSPECT, row
        case IndirectPing():
            row = (
                message.sequence,
                host_to_octets(message.host),
                message.port,
                message.node,
                message.nack,
                host_to_octets(message.source_host),
                message.source_port,
                message.source_node,
            )
            return MessageType.INDIRECT_PING, _INDIRECT, row
        case Nack():
            return MessageType.NACK, _NACK, (message.sequence,)
        case User():
            return MessageType.USER, (), (message.payload,)
        case _:
            assert_never(message)


def _node_row(state: PushNodeState) -> tuple[Value, ...]:
    """List a push/pull record's fields in declaration order."""
    return (
        state.name,
        host_to_octets(state.host),
        state.port,
        state.meta,
        state.incarnation,
        int(state.state),
        bytes(state.versions) if state.versions is not None else b"",
    )


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
    return 3 if value <= _U16_MAX else 5


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
    return 3 + count if count <= _U16_MAX else 5 + count


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
        kind, names, row = _row(message)
        return _TYPE_BYTES[kind] + self._body(names, row)

    def _body(self, names: Sequence[bytes], row: Sequence[Value]) -> bytes:
        return pack(_as_array(row) if self.compact else _as_map(names, row))

    def size(self, message: Rumour) -> int:
        """Count the bytes `encode` gives, without encoding."""
        _, names, row = _row(message)
        if self.compact:
            return 2 + sum(map(_value_size, _as_array(row)))
        total = 2
        for name, value in zip(names, row, strict=True):
            if value:
                total += 1 + len(name) + _value_size(value)
        return total

    def encode_node_state(self, state: PushNodeState) -> bytes:
        """Encode one push/pull record (no type byte)."""
        return self._body(_NODE_STATE, _node_row(state))

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
