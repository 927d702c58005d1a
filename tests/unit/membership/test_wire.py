"""The wire: golden captures of real nodes, and each layer by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from services.membership.codec import MessageCodec, decode, decode_node_state
from services.membership.dialect import pack
from services.membership.keyring import Keyring
from services.membership.label import label_header, split_label
from services.membership.lzw import decompress
from services.membership.message import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    MessageType,
    Nack,
    PacketMessage,
    Ping,
    Suspect,
    SwimState,
    User,
    Versions,
)
from services.membership.packet import PacketFormat, compound, split_compound
from services.membership.refusal import DropReason, RefusedError
from services.membership.serf.message import JoinIntent, decode_serf
from services.membership.tags import decode_tags, encode_tags
from tests.unit.membership.lzw_writer import compress

SERF_GOSSIP = bytes.fromhex(
    "0cc76f89ab"
    "0702"
    "0051"
    "0013"
    "0486a441646472a47f000009ab496e6361726e6174696f6e01a44d657461b6ff82a4726f6c65a465646765"
    "a5626f617264a3747832a44e6f6465a3707931a4506f7274cd1f0aa356736ea6010502020504"
    "080182a54c54696d6502a44e6f6465a3707931"
)
SERF_PING = bytes.fromhex(
    "0085a44e6f6465a3707931a55365714e6f02aa536f7572636541646472a47f000003"
    "aa536f757263654e6f6465a57365726642aa536f75726365506f7274cd1f0a"
)
CODEC = MessageCodec()
COMPACT = MessageCodec(compact=True)


class OldFormat(PacketFormat):
    """Wraps as a member whose PCur is 1."""

    encryption_version = 0


def compressing(kind: type[PacketFormat]) -> type[PacketFormat]:
    """Return a format that compresses what gets smaller by it, as members in Go do."""

    class Compressing(kind):  # type: ignore[misc, valid-type]
        def encode(self, messages: Sequence[PacketMessage]) -> bytes:
            data: bytes = super().encode(messages)
            smaller = bytes((MessageType.COMPRESS,)) + pack({"Algo": 0, "Buf": compress(data)})
            return min(data, smaller, key=len)

    return Compressing


def form(kind: type[PacketFormat] = PacketFormat, **options: object) -> PacketFormat:
    keys = options.pop("keys", ())
    keyring = options.pop("keyring", None) or Keyring(keys)  # type: ignore[arg-type]
    return kind(
        CODEC,
        keyring,  # type: ignore[arg-type]
        nonce=lambda count: b"\0" * count,
        **options,  # type: ignore[arg-type]
    )


def test_reads_a_gossip_packet_of_serf() -> None:
    messages, refused, _ = form().unwrap(SERF_GOSSIP)

    assert refused == []
    alive, user = messages
    assert isinstance(alive, Alive)
    assert (alive.node, alive.host, alive.port, alive.incarnation) == ("py1", "127.0.0.9", 7946, 1)
    assert alive.versions == Versions(1, 5, 2, 2, 5, 4)
    assert dict(decode_tags(alive.meta)) == {"role": "edge", "board": "tx2"}
    assert isinstance(user, User)
    assert decode_serf(user.payload) == JoinIntent(2, "py1")


def test_reads_a_ping_of_serf() -> None:
    assert decode(SERF_PING) == Ping(2, "py1", "127.0.0.3", 7946, "serfB")


def test_reads_an_ack_with_a_coordinate() -> None:
    payload = b"\x01" + pack({"Adjustment": 0.5, "Vec": [0.0] * 8})
    body = b"\x02" + pack({"Payload": payload, "SeqNo": 1})

    assert decode(body) == Ack(1, payload)


def test_writes_an_alive_as_serf_does() -> None:
    (alive, _), _, _ = form().unwrap(SERF_GOSSIP)

    assert CODEC.encode(alive) == SERF_GOSSIP[5 + 2 + 4 : 5 + 2 + 4 + 0x51]


MESSAGES: list[PacketMessage] = [
    Ping(7, "n1"),
    Ping(70000, "n1", "10.0.0.1", 7946, "n2"),
    IndirectPing(9, "10.0.0.9", 7946, "n1", nack=True),
    IndirectPing(9, "fd00::9", 1, "n1", nack=False, source_host="10.0.0.1", source_port=9),
    Ack(7),
    Ack(7, b"x" * 130),
    Nack(2**32 - 1),
    Suspect(3, "n1", "n2"),
    Alive(2**32 - 1, "n" * 40, "10.0.0.1", 65535, b"\xff\x80", Versions(1, 5, 2, 2, 5, 4)),
    Alive(1, "ünïcode", "fd00::1", 7946),
    Dead(200, "n1", "n1"),
    User(b"\x01abc"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("codec", [CODEC, COMPACT], ids=["maps", "compact"])
def test_round_trip(codec: MessageCodec, message: PacketMessage) -> None:
    data = codec.encode(message)

    assert decode(data) == message
    if isinstance(message, (Alive, Suspect, Dead)):
        assert codec.size(message) == len(data)


def test_compact_dialect_is_much_smaller() -> None:
    suspect = Suspect(3, "node-1", "node-2")

    assert len(COMPACT.encode(suspect)) < 0.6 * len(CODEC.encode(suspect))


def test_tolerates_what_real_decoders_tolerate() -> None:
    unknown = pack({"SeqNo": 5, "Node": "a", "Colour": [1, {"x": None}]})
    assert decode(b"\x00" + unknown) == Ping(5, "a")
    assert decode(b"\x00" + pack([5])) == Ping(5, "")
    assert decode(b"\x00" + pack([5, None, None, None, None, "more"])) == Ping(5, "")
    assert decode(
        b"\x00\x82\xa5SeqNo\xd3\x00\x00\x00\x00\x00\x00\x00\x05\xa4Node\xc4\x01a"
    ) == Ping(5, "a")
    alive = pack([1, "a", b"\x7f\0\0\1", 1, b"", [1, 5, 2, 0, 0, 0]])
    assert decode(b"\x04" + alive) == Alive(1, "a", "127.0.0.1", 1, b"", Versions(1, 5, 2, 0, 0, 0))
    mapped = bytes(10) + b"\xff\xff" + b"\x7f\0\0\1"
    told = decode(b"\x04" + pack([1, "a", mapped, 1]))
    assert isinstance(told, Alive)
    assert told.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", DropReason.EMPTY),
        (b"\x63", DropReason.UNKNOWN_TYPE),
        (b"\x00", DropReason.MALFORMED),
        (b"\x00\x05", DropReason.MALFORMED),
        (b"\x00" + pack({"SeqNo": -1}), DropReason.OUT_OF_RANGE),
        (b"\x00" + pack({"SeqNo": 2**32}), DropReason.OUT_OF_RANGE),
        (b"\x00" + pack({"SeqNo": 1.5}), DropReason.MALFORMED),
        (b"\x04" + pack([1, "a", b"123", 1]), DropReason.MALFORMED),
        (b"\x04" + pack([1, "a", b"1234", 1, b"", b"\x01\x02"]), DropReason.MALFORMED),
        (b"\x04" + pack([1, "a", b"1234", 1, b"m" * 513]), DropReason.TOO_BIG),
        (b"\x04" + pack([1, "a", b"1234", 65536]), DropReason.OUT_OF_RANGE),
        (b"\x03" + pack([1, "n" * 2000]), DropReason.TOO_BIG),
        (b"\x00\xdf\xff\xff\xff\xff", DropReason.MALFORMED),
        (b"\x00" + b"\x91" * 3000, DropReason.MALFORMED),
        (b"\x00\x81\x91\x01\x02", DropReason.MALFORMED),
    ],
)
def test_refuses_what_is_wrong(data: bytes, reason: DropReason) -> None:
    with pytest.raises(RefusedError) as caught:
        decode(data)

    assert caught.value.reason is reason


def test_refuses_a_state_out_of_range() -> None:
    with pytest.raises(RefusedError):
        decode_node_state(["a", b"1234", 1, b"", 1, 4])
    assert decode_node_state(["a", b"1234", 1, b"", 1, 3]).state is SwimState.LEFT


def test_compound() -> None:
    parts = [b"a", b"", b"ccc"]

    assert split_compound(compound(parts)[1:]) == (parts, 0)
    assert split_compound(compound(parts)[1:-1]) == ([b"a", b""], 1)
    with pytest.raises(ValueError, match="at most 127"):
        compound([b""] * 128)
    with pytest.raises(RefusedError):
        split_compound(b"\x80" + b"\0" * 10)


def test_the_packet_that_kills_serf_is_a_counted_drop() -> None:
    with pytest.raises(RefusedError):
        decode(bytes.fromhex("0780" + "00" * 10))
    messages, refused, _ = form().unwrap(bytes.fromhex("0780" + "00" * 10))

    assert messages == []
    assert refused == [DropReason.TRUNCATED]


def test_nesting_is_bounded() -> None:
    data = CODEC.encode(Nack(1))
    for _ in range(50):
        data = compound([data])

    messages, refused, _ = form().unwrap(data)

    assert messages == []
    assert refused == [DropReason.TOO_DEEP]


def test_parts_are_bounded() -> None:
    inner = compound([CODEC.encode(Nack(1))] * 127)

    messages, refused, _ = form().unwrap(compound([inner] * 50))

    assert len(messages) <= 1024
    assert set(refused) <= {DropReason.TOO_BIG}


def test_a_decompression_bomb_is_refused() -> None:
    bomb = b"\x09" + pack({"Algo": 0, "Buf": compress(b"\0" * 1_000_000)})

    assert form().unwrap(bomb) == ([], [DropReason.TOO_BIG], False)


@pytest.mark.parametrize(
    ("plain", "packed"),
    [
        (b"", "000302"),
        (b"a", "00c30404"),
        (b"a" * 12, "00c3081c48506040"),
        (
            b"the quick brown fox the quick brown fox",
            "00e9a02903224e9d3463d6801023e7cd1d3720ccbcc10342204183081532740851229e80",
        ),
    ],
)
def test_lzw_equals_go(plain: bytes, packed: str) -> None:
    assert compress(plain).hex() == packed
    assert decompress(compress(plain), 1000) == plain


def test_lzw_equals_go_across_clears_and_widths() -> None:
    x = 1
    parts: list[bytes] = []
    for count, shift in ((200_000, 29), (9_000, 24)):
        part = bytearray()
        for _ in range(count):
            x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
            part.append(x >> shift)
        parts.append(bytes(part))
    packed = [compress(part) for part in parts]

    assert [len(part) for part in packed] == [90684, 12206]
    assert [hashlib.sha256(part).hexdigest()[:8] for part in packed] == ["c06a9167", "dc5ab939"]
    assert [decompress(part, 10**6) for part in packed] == parts


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 9, compress(b"abc")[:-2]])
def test_lzw_refuses_garbage(data: bytes) -> None:
    with pytest.raises(RefusedError):
        decompress(data, 1000)


def test_sealing_equals_the_capture() -> None:
    sealed = Keyring([b"0123456789abcdef"]).seal(b"hello", b"\0" * 12, b"")

    assert sealed.hex() == "01" + "00" * 12 + "2a87462996c1ffa09634ad38e680af04b6201e2746"


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("version", [0, 1])
def test_seals_and_opens(size: int, version: int) -> None:
    old, new = b"o" * size, b"n" * size
    sealer = Keyring([old])
    ring = Keyring([new, old])

    for plain in (b"", b"x" * 16, b"hello"):
        sealed = sealer.seal(plain, b"1" * 12, b"label", version)
        if len(sealed) >= (45 if version == 0 else 29):
            assert ring.open(sealed, b"label") == plain
        with pytest.raises(RefusedError):
            ring.open(sealed, b"other")
        with pytest.raises(RefusedError):
            Keyring([new]).open(sealed, b"label")


def test_keyring_rotation() -> None:
    ring = Keyring([b"a" * 16])
    with pytest.raises(ValueError, match="not in the keyring"):
        ring.use(b"b" * 16)
    ring.install(b"b" * 16)
    assert ring.primary == b"a" * 16
    ring.use(b"b" * 16)
    with pytest.raises(ValueError, match="primary"):
        ring.remove(b"b" * 16)
    ring.remove(b"a" * 16)

    assert ring.keys == (b"b" * 16,)
    with pytest.raises(ValueError, match="16, 24 or 32"):
        ring.install(b"short")


@pytest.mark.parametrize("keys", [(), (b"k" * 16,), (b"k" * 32,)])
@pytest.mark.parametrize("label", ["", "fleet"])
@pytest.mark.parametrize(
    "kind", [PacketFormat, OldFormat, compressing(PacketFormat), compressing(OldFormat)]
)
def test_packets_round_trip(keys: tuple[bytes, ...], label: str, kind: type[PacketFormat]) -> None:
    wrap = form(kind, keys=keys, label=label)

    for messages in (MESSAGES[:1], MESSAGES, MESSAGES * 5):
        for checksum in (False, True):
            data = wrap.wrap(messages, checksum=checksum)
            assert wrap.unwrap(data) == (messages, [], bool(keys))


def test_foreign_packets_are_refused_by_reason() -> None:
    ours = form(keys=(b"k" * 16,), label="a")
    cases = {
        form(keys=(b"k" * 16,), label="b"): DropReason.WRONG_LABEL,
        form(keys=(b"k" * 16,)): DropReason.WRONG_LABEL,
        form(keys=(b"x" * 16,), label="a"): DropReason.UNDECRYPTABLE,
        form(label="a"): DropReason.UNDECRYPTABLE,
    }
    for theirs, reason in cases.items():
        with pytest.raises(RefusedError) as caught:
            ours.unwrap(theirs.wrap([Nack(1)], checksum=False))
        assert caught.value.reason is reason
    broken = bytearray(form().wrap([Nack(1)], checksum=True))
    broken[-1] ^= 1
    with pytest.raises(RefusedError) as caught:
        form().unwrap(bytes(broken))
    assert caught.value.reason is DropReason.BAD_CHECKSUM


def test_a_plain_cluster_moves_to_encryption_without_a_stop() -> None:
    plain = form()
    lenient = form(keyring=Keyring([b"k" * 16], verify_incoming=False, verify_outgoing=False))
    sealing = form(keyring=Keyring([b"k" * 16], verify_incoming=False))
    strict = form(keys=(b"k" * 16,))
    nack: list[PacketMessage] = [Nack(1)]

    for sender, reader, sealed in (
        (plain, lenient, False),
        (lenient, plain, False),
        (sealing, lenient, True),
        (lenient, sealing, False),
        (sealing, strict, True),
        (strict, sealing, True),
    ):
        assert reader.unwrap(sender.wrap(nack, checksum=False)) == (nack, [], sealed)
    told = lenient.wrap(nack, checksum=False, secret=True)
    assert strict.unwrap(told) == (nack, [], True)


def test_labels() -> None:
    assert split_label(label_header(b"abc") + b"rest") == (b"abc", b"rest")
    assert split_label(b"rest") == (b"", b"rest")
    for bad in (b"\xf4", b"\xf4\x05abc", b"\xf4\x00rest"):
        with pytest.raises(RefusedError):
            split_label(bad)
    with pytest.raises(ValueError, match="255"):
        label_header(b"x" * 256)


def test_tags() -> None:
    tags = {"role": "edge", "board": "tx2", "long": "v" * 40}

    assert dict(decode_tags(encode_tags(tags))) == tags
    assert dict(decode_tags(b"")) == {}
    assert dict(decode_tags(b"web")) == {"role": "web"}
    assert dict(decode_tags(b"\xff\xc1")) == {}
    assert dict(decode_tags(b"\xff\x81\x01\x02")) == {}
    with pytest.raises(ValueError, match="over 512"):
        encode_tags({"a": "x" * 600})
