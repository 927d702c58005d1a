"""StreamTransport: label, seal, compress and the messages inside; parsed piece by piece.

`[label, from the dialer only] [10 | u32 n | sealed n bytes] [compress] type body`. Plain streams
have no outer length, so bodies are parsed as they arrive. Work is done in slices: a push/pull
exchange of ten thousand members must not hold the event loop.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from enum import Enum
from functools import partial
from typing import Final, TypeVar

from services.membership import message as wire
from services.membership.codec import (
    decode_body,
    decode_compress,
    decode_node_state,
    decode_push_pull_header,
    decode_user_header,
)
from services.membership.dialect import StreamUnpacker
from services.membership.fields import fields, text
from services.membership.keyring import NONCE_BYTES, Keyring
from services.membership.label import check_label
from services.membership.lzw import Decompressor
from services.membership.refusal import DropReason, RefusedError
from services.membership.wire_format import WireFormat

T = TypeVar("T")

SEALED_BYTES_MAX: Final = 20 * 1024 * 1024
DECOMPRESSED_BYTES_MAX: Final = 40 * 1024 * 1024
_FRAME: Final = struct.Struct(">BI")
_LZW_SLICE_BYTES: Final = 4096
_NODES_SLICE: Final = 128
_ERROR_BYTES_MAX: Final = 4096


class ParserStop(Enum):
    """Why the parser stopped."""

    DATA = "data"
    TURN = "turn"


_Steps = Generator[ParserStop, None, wire.StreamMessage]


class StreamParser:
    """Reads one message from one stream; `sealed` says then whether a key had sealed it.

    Args:
        keyring: Keys that may open it.
        label: The cluster's label.
        dialled: Whether we dialled; what is answered carries no label header.
    """

    def __init__(self, keyring: Keyring, label: bytes, *, dialled: bool) -> None:
        self._keyring = keyring
        self._label = label
        self._dialled = dialled
        self._buffer = bytearray()
        self._ended = False
        self._steps = self._parse()
        self.message: wire.StreamMessage | None = None
        self.sealed = False

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived; none at all mean the end of the stream."""
        if data:
            self._buffer += data
        else:
            self._ended = True

    def work(self) -> ParserStop | None:
        """Do a slice of parsing; None when `message` is complete.

        Raises:
            RefusedError: The stream is malformed, foreign, or ended too early.
        """
        try:
            return next(self._steps)
        except StopIteration as stop:
            self.message = stop.value
            return None

    def _take(self, count: int) -> Generator[ParserStop, None, bytes]:
        """Wait for `count` bytes and take them."""
        while len(self._buffer) < count:
            if self._ended:
                raise RefusedError(DropReason.TRUNCATED, "stream ended too early")
            yield ParserStop.DATA
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _parse(self) -> _Steps:
        kind = (yield from self._take(1))[0]
        found = b""
        if kind == wire.MessageType.HAS_LABEL and not self._dialled:
            length = (yield from self._take(1))[0]
            found = yield from self._take(length)
            kind = (yield from self._take(1))[0]
        if not self._dialled:
            check_label(found, self._label)
        if kind == wire.MessageType.ENCRYPT:
            kind = yield from self._open()
        elif self._keyring.demands:
            raise RefusedError(
                DropReason.NOT_ENCRYPTED, "encryption is configured, stream is plain"
            )
        if kind == wire.MessageType.COMPRESS:
            kind = yield from self._decompress()
        return (yield from self._body(kind))

    def _open(self) -> Generator[ParserStop, None, int]:
        """Replace the buffer by what was sealed; returns the next type byte."""
        if not self._keyring.keys:
            raise RefusedError(
                DropReason.UNDECRYPTABLE, "stream is encrypted, no key is configured"
            )
        head = yield from self._take(4)
        length = int.from_bytes(head, "big")
        if length > SEALED_BYTES_MAX:
            raise RefusedError(DropReason.TOO_BIG, f"sealed frame of {length} bytes")
        sealed = yield from self._take(length)
        associated = bytes((wire.MessageType.ENCRYPT,)) + head + self._label
        self._buffer = bytearray(self._keyring.open(sealed, associated))
        self.sealed = True
        self._ended = True
        return (yield from self._take(1))[0]

    def _read(
        self, unpacker: StreamUnpacker, take: Callable[[], tuple[bool, T]]
    ) -> Generator[ParserStop, None, T]:
        """Wait for what `take` finds in the unpacker: a msgpack value, or raw bytes behind some."""
        while True:
            if self._buffer:
                unpacker.feed(bytes(self._buffer))
                self._buffer.clear()
            there, found = take()
            if there:
                return found
            if self._ended:
                raise RefusedError(DropReason.TRUNCATED, "stream ended too early")
            yield ParserStop.DATA

    def _decompress(self) -> Generator[ParserStop, None, int]:
        """Replace the buffer by what was compressed; returns the next type byte."""
        unpacker = StreamUnpacker()
        packed = decode_compress((yield from self._read(unpacker, unpacker.value)))
        stream = Decompressor(DECOMPRESSED_BYTES_MAX)
        for start in range(0, len(packed), _LZW_SLICE_BYTES):
            stream.feed(packed[start : start + _LZW_SLICE_BYTES])
            yield ParserStop.TURN
        if not stream.ended:
            raise RefusedError(DropReason.BAD_COMPRESSION, "LZW stream has no end mark")
        self._buffer = bytearray(stream.output)
        self._ended = True
        return (yield from self._take(1))[0]

    def _body(self, kind: int) -> _Steps:
        unpacker = StreamUnpacker()
        if kind == wire.MessageType.PUSH_PULL:
            return (yield from self._push_pull(unpacker))
        if kind == wire.MessageType.PING or kind == wire.MessageType.ACK:  # noqa: PLR1714 mypy narrows so
            message = decode_body(kind, (yield from self._read(unpacker, unpacker.value)))
            if isinstance(message, (wire.Ping, wire.Ack)):
                return message
        if kind == wire.MessageType.USER:
            size = decode_user_header((yield from self._read(unpacker, unpacker.value)))
            return wire.User((yield from self._read(unpacker, partial(unpacker.raw, size))))
        if kind == wire.MessageType.ERROR:
            value = yield from self._read(unpacker, unpacker.value)
            return wire.ErrorReply(text(fields(value, (b"Error",))[0], "Error", _ERROR_BYTES_MAX))
        raise RefusedError(DropReason.UNKNOWN_TYPE, f"stream message type {kind}")

    def _push_pull(self, unpacker: StreamUnpacker) -> _Steps:
        header = yield from self._read(unpacker, unpacker.value)
        count, size, join = decode_push_pull_header(header)
        nodes: list[wire.PushNodeState] = []
        while len(nodes) < count:
            nodes.append(decode_node_state((yield from self._read(unpacker, unpacker.value))))
            if not len(nodes) % _NODES_SLICE:
                yield ParserStop.TURN
        state = yield from self._read(unpacker, partial(unpacker.raw, size))
        return wire.PushPull(tuple(nodes), state, join)


class StreamFormat(WireFormat):
    """How one cluster wraps its streams."""

    def parser(self, *, dialled: bool) -> StreamParser:
        """Make a parser for one stream."""
        return StreamParser(self._keyring, self._label, dialled=dialled)

    def encode(self, message: wire.StreamMessage) -> Iterator[bytes]:
        """Encode a message in slices of bounded work."""
        codec = self._codec
        if isinstance(message, wire.PushPull):
            yield codec.encode_push_pull_header(
                len(message.nodes), len(message.user_state), join=message.join
            )
            for start in range(0, len(message.nodes), _NODES_SLICE):
                some = message.nodes[start : start + _NODES_SLICE]
                yield b"".join(map(codec.encode_node_state, some))
            yield message.user_state
        elif isinstance(message, wire.User):
            yield codec.encode_user_stream(message.payload)
        elif isinstance(message, wire.ErrorReply):
            yield codec.encode_error(message)
        else:
            yield codec.encode(message)

    def wrap(self, plain: bytes, *, dialled: bool) -> bytes:
        """Seal an encoded message and, if we dialled, put the label before it."""
        data = plain
        if self._keyring.seals:
            # Nonce, tag, version and at most one block of padding come on top of the plain bytes.
            pad = 0 if self.encryption_version else 16 - len(plain) % 16
            length = 1 + NONCE_BYTES + len(plain) + pad + 16
            frame = _FRAME.pack(wire.MessageType.ENCRYPT, length)
            nonce = self._nonce(NONCE_BYTES)
            data = frame + self._keyring.seal(
                plain, nonce, frame + self._label, self.encryption_version
            )
        return self._header + data if dialled else data
