"""StreamTransport: parsed byte by byte as well as at once, in every wrapping."""

from __future__ import annotations

import struct

import pytest

from services.membership.codec import MessageCodec
from services.membership.dialect import pack
from services.membership.keyring import Keyring
from services.membership.message import (
    Ack,
    ErrorReply,
    Ping,
    PushNodeState,
    PushPull,
    StreamMessage,
    SwimState,
    User,
    Versions,
)
from services.membership.refusal import DropReason, RefusedError
from services.membership.stream import ParserStop, StreamFormat, StreamParser
from tests.unit.membership.lzw_writer import compress

NODES = tuple(
    PushNodeState(
        f"n{index}", "10.0.0.1", 7946, b"m", index, SwimState(index % 4), Versions(1, 5, 2)
    )
    for index in range(300)
)
MESSAGES: list[StreamMessage] = [
    Ping(5, "n1"),
    Ack(5, b"payload"),
    PushPull((), b"", join=True),
    PushPull(NODES, b"state" * 100, join=False),
    User(b""),
    User(b"x" * 70000),
    ErrorReply("no"),
]


def form(keys: tuple[bytes, ...] = (), label: str = "", version: int = 1) -> StreamFormat:
    made = StreamFormat(MessageCodec(), Keyring(keys), label, nonce=lambda n: b"\0" * n)
    made.encryption_version = version  # type: ignore[misc]  # as older members seal
    return made


def parse(parser: StreamParser, data: bytes, piece: int) -> StreamMessage:
    offset = 0
    while True:
        pause = parser.work()
        if pause is None:
            assert parser.message is not None
            return parser.message
        if pause is ParserStop.DATA:
            parser.feed(data[offset : offset + piece])
            offset += piece


@pytest.mark.parametrize("keys", [(), (b"k" * 32,)], ids=["plain", "sealed"])
@pytest.mark.parametrize("label", ["", "fleet"])
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_round_trip(
    keys: tuple[bytes, ...], label: str, version: int, piece: int, message: StreamMessage
) -> None:
    wrap = form(keys, label, version)
    for dialled in (True, False):
        data = wrap.wrap(b"".join(wrap.encode(message)), dialled=dialled)

        assert parse(wrap.parser(dialled=not dialled), data, piece) == message


def test_reads_a_compressed_exchange() -> None:
    wrap = form()
    plain = b"".join(wrap.encode(PushPull(NODES, b"s", join=True)))
    data = b"\x09" + pack({"Algo": 0, "Buf": compress(plain)})

    assert parse(wrap.parser(dialled=False), data, 100) == PushPull(NODES, b"s", join=True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", DropReason.TRUNCATED),
        (b"\x06", DropReason.TRUNCATED),
        (b"\x63", DropReason.UNKNOWN_TYPE),
        (b"\x06" + pack({"Nodes": -1, "UserStateLen": 0}), DropReason.OUT_OF_RANGE),
        (b"\x06" + pack({"Nodes": 2**40, "UserStateLen": 0}), DropReason.OUT_OF_RANGE),
        (b"\x06" + pack({"Nodes": 0, "UserStateLen": 2**31}), DropReason.OUT_OF_RANGE),
        (b"\x06" + pack({"Nodes": 5, "UserStateLen": 0}), DropReason.TRUNCATED),
        (b"\x06" + pack({"Nodes": 1}) + pack(7), DropReason.MALFORMED),
        (b"\x08" + pack({"UserMsgLen": 2**30}), DropReason.OUT_OF_RANGE),
        (b"\x09" + pack({"Algo": 1, "Buf": b""}), DropReason.BAD_COMPRESSION),
        (b"\x09" + pack({"Algo": 0, "Buf": b""}), DropReason.BAD_COMPRESSION),
        (b"\x0a" + struct.pack(">I", 10) + b"x" * 10, DropReason.UNDECRYPTABLE),
        (b"\xf4\x03abc\x06", DropReason.WRONG_LABEL),
    ],
)
def test_refuses_what_is_wrong(data: bytes, reason: DropReason) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(form().parser(dialled=False), data, 64)

    assert caught.value.reason is reason


def test_encryption_is_demanded_and_bounded() -> None:
    sealed = form((b"k" * 16,))
    with pytest.raises(RefusedError) as caught:
        parse(sealed.parser(dialled=False), b"\x00" + pack([1]), 64)
    assert caught.value.reason is DropReason.NOT_ENCRYPTED
    with pytest.raises(RefusedError) as caught:
        parse(sealed.parser(dialled=False), b"\x0a\xff\xff\xff\xff", 64)
    assert caught.value.reason is DropReason.TOO_BIG


def test_a_large_exchange_is_parsed_in_slices() -> None:
    wrap = form()
    parser = wrap.parser(dialled=False)
    parser.feed(b"".join(wrap.encode(PushPull(NODES, b"", join=False))))

    turns = 0
    while parser.work() is ParserStop.TURN:
        turns += 1

    assert turns == len(NODES) // 128
