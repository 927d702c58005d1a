"""Raw formats at the client, cut and joined however the bytes arrive."""

import random

import pytest

from shoal.local.block import pack
from shoal.local.cutter import CutError, Cutter, plain
from shoal.spec import PortBinding, PortFormat

LINES = PortBinding(PortFormat.LINES)
FOURS = PortBinding(PortFormat.U32)


def cut(binding: PortBinding, data: bytes, rng: random.Random) -> list[bytes]:
    """Feed data in pieces of any length."""
    cutter = Cutter(binding)
    records: list[bytes] = []
    while data:
        size = rng.randrange(1, 9)
        records += cutter.feed(data[:size])
        data = data[size:]
    return records + cutter.finish()


def test_f13_records_survive_any_cut_of_the_bytes() -> None:
    """What a program writes is what another one reads."""
    rng = random.Random(13)
    lines = [rng.randbytes(rng.randrange(20)).replace(b"\n", b"") for _ in range(200)]
    fours = [rng.randbytes(4) for _ in range(200)]
    for binding, records in ((LINES, lines), (FOURS, fours)):
        written = b"".join(plain(binding, packed) for packed in pack(0, records))
        assert cut(binding, written, rng) == records
    assert cut(LINES, b"one\ntwo", rng) == [b"one", b"two"]


def test_f13_what_a_format_does_not_have_is_refused() -> None:
    """Half a number, a newline in a line, a record of the wrong size."""
    with pytest.raises(CutError, match="2 bytes into a record of 4"):
        cut(FOURS, b"123456", random.Random(1))
    [packed] = pack(5, [b"a", b"b\nc"])
    with pytest.raises(CutError, match="record 6 holds a newline"):
        plain(LINES, packed)
    with pytest.raises(CutError, match="record 5 has 1 bytes"):
        plain(FOURS, packed)


def test_blocks_hold_what_a_block_may_hold() -> None:
    """A quarter of a MiB, or one record that is larger."""
    packed = pack(3, [bytes(100_000)] * 5 + [bytes(1_000_000)] + [b"x"])
    assert [(one.first, one.count) for one in packed] == [(3, 2), (5, 2), (7, 1), (8, 1), (9, 1)]
