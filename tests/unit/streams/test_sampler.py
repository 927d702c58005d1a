"""What a tap takes of a stream: every n-th, within its buckets, and counted when it is not."""

from services.streams.block import Block, Kind, pack
from services.streams.sampler import RECORD_BYTES, Sampler, SampleRequest


def block(records: list[bytes]) -> Block:
    """A DATA block."""
    return Block(Kind.DATA, 0, len(records), pack(records))


def test_every_nth_by_the_number_on_the_port_wherever_blocks_begin() -> None:
    """F13: `--every 3` shows 0, 3, 6, … however the records are packed."""
    sampler = Sampler(SampleRequest.of(3, 0, 0, 0), 0.0)
    first = 0
    for count in (1, 1, 4, 2, 9):
        sampler.offer(block([b"%d" % (first + index) for index in range(count)]), first, 0.0)
        first += count
    taken = sampler.take()
    assert [one.sequence for one in taken] == [0, 3, 6, 9, 12, 15]
    assert [one.data for one in taken] == [b"0", b"3", b"6", b"9", b"12", b"15"]
    assert sampler.dropped == 0
    assert not sampler.take()


def test_what_the_buckets_do_not_let_through_is_counted() -> None:
    """F13: ten records a second are shown of any number, and come back with time."""
    sampler = Sampler(SampleRequest.of(1, 10, 0, 0), 0.0)
    sampler.offer(block([b"x"] * 25), 0, 0.0)
    assert len(sampler.take()) == 10
    assert sampler.dropped == 15
    sampler.offer(block([b"x"] * 25), 25, 0.0)
    assert not sampler.take()
    assert sampler.dropped == 40
    sampler.offer(block([b"x"] * 25), 50, 0.5)
    assert [one.sequence for one in sampler.take()] == [50, 51, 52, 53, 54]
    assert sampler.dropped == 60


def test_a_large_record_is_shown_by_its_beginning() -> None:
    """F13: one that is larger than the bucket is seen too, and only once in a while."""
    sampler = Sampler(SampleRequest.of(1, 0, 100_000, 0), 0.0)
    large = bytes(3_000_000)
    for sequence in range(4):
        sampler.offer(block([large]), sequence, 0.0)
    taken = sampler.take()
    assert [(one.sequence, one.size, len(one.data)) for one in taken] == [
        (0, 3_000_000, RECORD_BYTES),
        (1, 3_000_000, RECORD_BYTES),
    ]
    assert sampler.dropped == 2


def test_nobody_fetches_and_memory_stays_bounded() -> None:
    """F13: a reader that stands still costs a megabyte at most."""
    sampler = Sampler(SampleRequest.of(1, 1e9, 1e12, 1024 * 1024), 0.0)
    for sequence in range(100):
        sampler.offer(block([bytes(500_000)]), sequence, float(sequence))
    taken = sampler.take()
    assert sum(len(one.data) for one in taken) <= 1024 * 1024
    assert len(taken) + sampler.dropped == 100
