"""Raw formats at the client, cut and joined however the bytes arrive."""

import random

import pytest

from shoal.job.error import PortError
from shoal.job.worker_end import RawFormat
from shoal.local.checked_block import pack

LINES, FOURS = "lines", "u32"


def cut(name: str, data: bytes, rng: random.Random) -> list[bytes]:
    """Feed data in pieces of any length."""
    cutter = RawFormat(name)
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
    for name, records in ((LINES, lines), (FOURS, fours)):
        packed = pack(0, records)
        raw = RawFormat(name)
        written = b"".join(raw.render(one.first, one.payloads()) for one in packed)
        assert cut(name, written, rng) == records
    assert cut(LINES, b"one\ntwo", rng) == [b"one", b"two"]


def test_f13_what_a_format_does_not_have_is_refused() -> None:
    """Half a number, a newline in a line, a record of the wrong size."""
    with pytest.raises(PortError, match="2 bytes into a record of 4"):
        cut(FOURS, b"123456", random.Random(1))
    [packed] = pack(5, [b"a", b"b\nc"])
    with pytest.raises(PortError, match="record 6 holds a newline"):
        RawFormat(LINES).render(packed.first, packed.payloads())
    with pytest.raises(PortError, match="record 5 has 1 bytes"):
        RawFormat(FOURS).render(packed.first, packed.payloads())


def test_blocks_hold_what_a_block_may_hold() -> None:
    """A quarter of a MiB, or one record that is larger."""
    packed = pack(3, [bytes(100_000)] * 5 + [bytes(1_000_000)] + [b"x"])
    assert [(one.first, one.count) for one in packed] == [(3, 2), (5, 2), (7, 1), (8, 1), (9, 1)]
