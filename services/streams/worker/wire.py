"""Messages of Pull as bytes: blocks pass without being copied into a message and out of it again.

On the wire they are the messages of the contract; only the code that writes and reads them is ours.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from services.streams.block import Block, BlockError, Body, decode
from services.streams.part import OFFSET, ranges
from services.streams.worker.lane_registry import ReadPiece
from shoal.v1.streams_service_pb2 import PullResponse

PULL = "/shoal.v1.StreamsService/Pull"
SERVICE = "shoal.v1.StreamsService"

# Fields 2 and 5 of PullResponse, length-delimited (protobuf encoding, "Message Structure").
_BLOCK_TAG = PullResponse.BLOCK_FIELD_NUMBER << 3 | 2
_PART_TAG = PullResponse.PART_FIELD_NUMBER << 3 | 2


@dataclass(frozen=True, slots=True)
class Part:
    """A message with a part of a large block: from `at` to the end of `data`."""

    data: bytes
    at: int


@dataclass(frozen=True, slots=True)
class BadBlock:
    """A message with a block that is none; the lane has to be dialled again."""

    reason: str


def write_block(header: bytes, body: Body) -> bytes:
    """Return PullResponse{block} as bytes."""
    return b"".join((bytes((_BLOCK_TAG,)), _varint(len(header) + len(body)), header, body))


def write_part(header: bytes, offset: int, piece: bytes | memoryview) -> bytes:
    """Return PullResponse{part} as bytes; the header goes with offset 0 alone."""
    head = header if offset == 0 else b""
    length = OFFSET.size + len(head) + len(piece)
    return b"".join((bytes((_PART_TAG,)), _varint(length), OFFSET.pack(offset), head, piece))


async def write_parts(header: bytes, size: int, read: ReadPiece) -> AsyncGenerator[bytes]:
    """Yield the messages that carry a body of `size` bytes, whose pieces are read one by one."""
    for offset, length in ranges(size):
        yield write_part(header, offset, await read(offset, length))


def in_memory(body: Body) -> ReadPiece:
    """Return what reads pieces of a body without copying them."""
    view = memoryview(body)

    async def read(offset: int, length: int) -> memoryview:
        return view[offset : offset + length]

    return read


def write_message(message: bytes) -> bytes:
    """Serializer of responses, which are bytes already."""
    return message


def read_message(data: bytes) -> PullResponse | Block | Part | BadBlock:
    """Read a response; a block is checked, a part is left as it is."""
    if not data or data[0] not in {_BLOCK_TAG, _PART_TAG}:
        return PullResponse.FromString(data)
    length, at = _read_varint(data, 1)
    if at + length != len(data):
        return BadBlock(f"a message of {len(data)} bytes carries a block of {length}")
    if data[0] == _PART_TAG:
        return Part(data, at)
    try:
        return decode(data, at)
    except BlockError as error:
        return BadBlock(error.reason)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return -1, at
