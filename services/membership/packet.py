"""Datagrams: compound, compress, checksum, seal, label; and all of it in reverse.

Layering on the wire, outermost first: label, seal, checksum, compress, compound, message. Inside,
`compound` and `compress` may nest; the depth, the parts and the decompressed bytes are bounded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from services.membership.codec import decode, decode_compress
from services.membership.dialect import unpack
from services.membership.keyring import NONCE_BYTES, OVERHEAD_BYTES
from services.membership.label import check_label, split_label
from services.membership.lzw import decompress
from services.membership.message import MessageType, PacketMessage
from services.membership.refusal import DropReason, RefusedError
from services.membership.wire_format import WireFormat

COMPOUND_PARTS_MAX: Final = 127
"""More would crash memberlist before 0.3, whose length arithmetic is eight bits wide."""
COMPOUND_HEADER_BYTES: Final = 2
COMPOUND_PART_BYTES: Final = 2
PACKET_BYTES: Final = 1400
"""What a datagram may hold before seal and label, as upstream's UDPBufferSize."""
DEPTH_MAX: Final = 4
MESSAGES_MAX: Final = 1024
DECOMPRESSED_BYTES_MAX: Final = 64 * 1024
_CRC_HEADER: Final = struct.Struct(">BI")
_U16: Final = struct.Struct(">H")


def compound(parts: Sequence[bytes]) -> bytes:
    """Put up to 127 messages into one.

    Raises:
        ValueError: More than 127 parts.
    """
    if len(parts) > COMPOUND_PARTS_MAX:
        raise ValueError(f"{len(parts)} parts in a compound; use at most {COMPOUND_PARTS_MAX}")
    head = bytearray((MessageType.COMPOUND, len(parts)))
    for part in parts:
        head += _U16.pack(len(part))
    return bytes(head) + b"".join(parts)


def split_compound(body: bytes) -> tuple[list[bytes], int]:
    """Split what follows a compound's type byte: `(complete parts, parts cut off)`.

    Raises:
        RefusedError: Not even the lengths are there.
    """
    if not body:
        raise RefusedError(DropReason.TRUNCATED, "compound has no count")
    count = body[0]
    offset = 1 + 2 * count
    if len(body) < offset:
        raise RefusedError(DropReason.TRUNCATED, f"compound of {count} parts ends in its lengths")
    parts: list[bytes] = []
    for (length,) in _U16.iter_unpack(body[1:offset]):
        if offset + length > len(body):
            break
        parts.append(body[offset : offset + length])
        offset += length
    return parts, count - len(parts)


class PacketFormat(WireFormat):
    """How one cluster wraps its datagrams."""

    @property
    def budget(self) -> int:
        """Bytes for messages in one datagram: 1400 less label and seal."""
        sealed = OVERHEAD_BYTES[self.encryption_version] if self._keyring.seals else 0
        return PACKET_BYTES - len(self._header) - sealed

    def encode(self, messages: Sequence[PacketMessage]) -> bytes:
        """Make one message of one or more."""
        encoded = [self._codec.encode(message) for message in messages]
        return encoded[0] if len(encoded) == 1 else compound(encoded)

    def wrap(
        self, messages: Sequence[PacketMessage], *, checksum: bool, secret: bool = False
    ) -> bytes:
        """Make one datagram of one or more messages.

        Args:
            messages: At most 127.
            checksum: Put a CRC-32 before it; only for receivers known to speak protocol 5.
            secret: Seal it wherever there is a key, also where other traffic still goes plain.
        """
        data = self.encode(messages)
        if checksum:
            data = _CRC_HEADER.pack(MessageType.HAS_CRC, zlib.crc32(data)) + data
        if self._keyring.seals or (secret and self._keyring.keys):
            nonce = self._nonce(NONCE_BYTES)
            data = self._keyring.seal(data, nonce, self._label, self.encryption_version)
        return self._header + data if self._header else data

    def unwrap(self, data: bytes) -> tuple[list[PacketMessage], list[DropReason], bool]:
        """Read a datagram: `(messages, a reason for each refused part, sealed by our key or not)`.

        Raises:
            RefusedError: Nothing of it can be read.
        """
        label, data = split_label(data)
        check_label(label, self._label)
        sealed = False
        if self._keyring.keys:
            try:
                data = self._keyring.open(data, self._label)
                sealed = True
            except RefusedError:
                if self._keyring.verify_incoming:
                    raise
        if len(data) >= _CRC_HEADER.size and data[0] == MessageType.HAS_CRC:
            if zlib.crc32(memoryview(data)[5:]) != _CRC_HEADER.unpack_from(data)[1]:
                raise RefusedError(DropReason.BAD_CHECKSUM, "CRC-32 differs")
            data = data[_CRC_HEADER.size :]
        if not data:
            raise RefusedError(DropReason.EMPTY, "empty packet")
        if data[0] not in (MessageType.COMPOUND, MessageType.COMPRESS):
            return [decode(data)], [], sealed
        reading = _Reading()
        reading.take(data, 0)
        return reading.messages, reading.refused, sealed


class _Reading:
    """One datagram being read, with what it has cost so far."""

    def __init__(self) -> None:
        self.messages: list[PacketMessage] = []
        self.refused: list[DropReason] = []
        self._parts = 0
        self._budget = DECOMPRESSED_BYTES_MAX

    def take(self, data: bytes, depth: int) -> None:
        """Read one part, and the parts inside it."""
        self._parts += 1
        if depth > DEPTH_MAX or self._parts > MESSAGES_MAX:
            self.refused.append(DropReason.TOO_DEEP if depth > DEPTH_MAX else DropReason.TOO_BIG)
            return
        try:
            kind = data[0] if data else -1
            if kind == MessageType.COMPOUND:
                parts, cut = split_compound(data[1:])
                if cut:
                    self.refused.append(DropReason.TRUNCATED)
                for part in parts:
                    if self._parts > MESSAGES_MAX:
                        break
                    self.take(part, depth + 1)
            elif kind == MessageType.COMPRESS:
                packed = decode_compress(unpack(memoryview(data)[1:]))
                plain = decompress(packed, self._budget)
                self._budget -= len(plain)
                self.take(plain, depth + 1)
            else:
                self.messages.append(decode(data))
        except RefusedError as error:
            self.refused.append(error.reason)
