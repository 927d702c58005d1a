"""Hostile packets and streams: nothing escapes, nothing grows."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.membership import lzw
from services.membership.codec import MessageCodec, decode
from services.membership.events import PacketReceived
from services.membership.keyring import Keyring
from services.membership.machine import SwimMachine
from services.membership.message import (
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Nack,
    Ping,
    Suspect,
    User,
    Versions,
)
from services.membership.packet import PacketFormat
from services.membership.profile import Profile
from services.membership.refusal import RefusedError
from services.membership.serf.message import decode_serf, decode_user_state
from services.membership.stream import ParserStop, StreamParser
from services.membership.tags import decode_tags
from tests.unit.membership.lzw_writer import compress

NAMES = st.text(max_size=20)
U32 = st.integers(0, 2**32 - 1)
PORT = st.integers(0, 65535)
HOST = st.one_of(st.just(""), st.ip_addresses().map(str))
VERSIONS = st.one_of(st.none(), st.builds(Versions, *[st.integers(0, 255)] * 6))
RUMOURS = st.one_of(
    st.builds(Suspect, U32, NAMES, NAMES),
    st.builds(Dead, U32, NAMES, NAMES),
    st.builds(Alive, U32, NAMES, HOST, PORT, st.binary(max_size=512), VERSIONS),
)
MESSAGES = st.one_of(
    RUMOURS,
    st.builds(Ping, U32, NAMES, HOST, PORT, NAMES),
    st.builds(IndirectPing, U32, HOST, PORT, NAMES, st.booleans(), HOST, PORT, NAMES),
    st.builds(Ack, U32, st.binary(max_size=200)),
    st.builds(Nack, U32),
    st.builds(User, st.binary(max_size=200)),
)
CODECS = [MessageCodec(), MessageCodec(compact=True)]
SEEDS = [
    bytes.fromhex(data)
    for data in (
        (
            "0cc76f89ab0702005100130486a441646472a47f000009ab496e6361726e6174696f6e01a44d657461b6ff82a4"
            "726f6c65a465646765a5626f617264a3747832a44e6f6465a3707931a4506f7274cd1f0aa356736ea601050202"
            "0504080182a54c54696d6502a44e6f6465a3707931"
        ),
        (
            "0085a44e6f6465a3707931a55365714e6f02aa536f7572636541646472a47f000003aa536f757263654e6f6465"
            "a57365726642aa536f75726365506f7274cd1f0a"
        ),
        "0282a75061796c6f6164c0a55365714e6f01",
        "078000000000000000000000",
        "0982a4416c676f00a3427566a700e9a029032200",
        "f403616263" + "0081a55365714e6f01",
    )
]


def mapped(host: str) -> bool:
    return host.lower().startswith("::ffff:")


@given(MESSAGES, st.sampled_from(CODECS))
def test_what_is_encoded_is_decoded(message: object, codec: MessageCodec) -> None:
    hosts = [getattr(message, name, "") for name in ("host", "source_host")]
    if any(map(mapped, hosts)):
        return  # read as the IPv4 address that it means
    data = codec.encode(message)  # type: ignore[arg-type]

    assert decode(data) == message
    if isinstance(message, (Alive, Suspect, Dead)):
        assert codec.size(message) == len(data)


@given(st.binary(max_size=3000))
def test_lzw_round_trip(data: bytes) -> None:
    assert lzw.decompress(compress(data), len(data)) == data


@given(st.binary(max_size=300))
def test_lzw_survives_garbage(data: bytes) -> None:
    with contextlib.suppress(RefusedError):
        assert len(lzw.decompress(data, 4096)) <= 4096


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(data) - 1)) if data else 0
        match draw(st.integers(0, 3)):
            case 0 if data:
                data[place] = draw(st.integers(0, 255))
            case 1:
                data[place:place] = draw(st.binary(max_size=6))
            case 2:
                del data[place : place + draw(st.integers(1, 8))]
            case _:
                data += data[place:]
    return bytes(data[:4000])


HOSTILE = st.one_of(st.binary(max_size=200), mutated())
FORMATS = [
    PacketFormat(MessageCodec(), Keyring(keys), label, nonce=lambda n: b"\0" * n)
    for keys in ((), (b"k" * 16,))
    for label in ("", "abc")
]


def machine() -> SwimMachine:
    profile = Profile(name="py1", address=Address("10.0.0.1", 7946))
    return SwimMachine(profile, random.Random(1), 0.0)


@settings(max_examples=400)
@given(st.lists(HOSTILE, max_size=10))
def test_no_packet_lets_an_exception_out(packets: list[bytes]) -> None:
    swim = machine()
    for data in packets:
        for form in FORMATS:
            try:
                messages, _, sealed = form.unwrap(data)
            except RefusedError:
                continue
            effects = swim.handle(PacketReceived(Address("10.0.0.2", 1), messages, sealed), 0.0)
            for message in messages:
                if isinstance(message, User):
                    with contextlib.suppress(RefusedError):
                        decode_serf(message.payload)
            for member in swim.members(all_states=True):
                assert all(isinstance(tag, str) for tag in member.tags)
            assert len(effects) <= 8 * len(messages)
    now = 0.0
    for _ in range(50):
        deadline = swim.deadline()
        assert deadline is not None
        now = max(now, deadline)
        swim.tick(now)


@settings(max_examples=300)
@given(HOSTILE, st.sampled_from([(), (b"k" * 16,)]), st.integers(1, 50))
def test_no_stream_lets_an_exception_out(data: bytes, keys: tuple[bytes, ...], piece: int) -> None:
    parser = StreamParser(Keyring(keys), b"", dialled=False)
    offset = 0
    try:
        while (pause := parser.work()) is not None:
            if pause is ParserStop.DATA:
                parser.feed(data[offset : offset + piece])
                offset += piece
    except RefusedError:
        pass


@given(st.binary(max_size=300))
def test_no_serf_message_lets_an_exception_out(data: bytes) -> None:
    for kind in range(11):
        with contextlib.suppress(RefusedError):
            decode_serf(bytes((kind,)) + data)
    with contextlib.suppress(RefusedError):
        decode_user_state(b"\x02" + data)
    decode_tags(b"\xff" + data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(RUMOURS, st.floats(0, 5)), max_size=40))
def test_incarnations_never_fall_and_the_own_record_lives(
    rumours: list[tuple[Alive | Suspect | Dead, float]],
) -> None:
    swim = machine()
    now = 0.0
    highest: dict[str, int] = {}
    for rumour, pause in rumours:
        now += pause
        while (deadline := swim.deadline()) is not None and deadline <= now:
            swim.tick(max(deadline, 0.0))
        swim.handle(PacketReceived(Address("10.0.0.2", 1), (rumour,)), now)
        for member in swim.states.table:
            assert member.incarnation >= highest.get(member.name, 0)
            highest[member.name] = member.incarnation
        assert swim.me.state == 0
        table = swim.states.table
        assert table.reachable == sum(member.reachable for member in table)
        assert len(table) == sum(1 for _ in table)


def test_the_mutation_corpus_is_read_by_the_plain_format() -> None:
    for data in SEEDS[:3]:
        messages, refused, _ = FORMATS[0].unwrap(data)
        assert messages
        assert not refused
    with pytest.raises(RefusedError):
        FORMATS[0].unwrap(SEEDS[5])
