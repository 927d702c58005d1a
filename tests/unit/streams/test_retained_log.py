"""What is kept, what is joined, what goes to the spool, what is let go."""

from __future__ import annotations

from services.streams.block import Block, Kind, pack, unpack
from services.streams.block_index import SpoolPlace
from services.streams.retained_log import RetainedLog, SpoolLedger


def add(log: RetainedLog, *records: bytes) -> None:
    log.append(len(records), pack(records))


def test_small_blocks_join_until_somebody_takes_them() -> None:
    log = RetainedLog()
    for letter in (b"a", b"b", b"c"):
        add(log, letter)
    retained = log.block(0)
    assert retained is not None
    assert (retained.first, retained.count, retained.body) == (0, 3, pack([b"a", b"b", b"c"]))
    assert log.block(1) is None
    add(log, b"d")
    later = log.block(1)
    assert later is not None
    assert (later.first, later.count, later.offset) == (3, 1, retained.size)


def test_a_large_block_stays_as_it_is() -> None:
    log = RetainedLog(block_bytes=400)
    add(log, b"small")
    body = pack([b"x" * 200])
    log.append(1, body)
    large = log.block(1)
    assert large is not None
    assert large.body is body
    assert [log.number_at(sequence) for sequence in (0, 1, 2)] == [0, 1, 2]


def test_only_whole_blocks_are_let_go_and_numbers_stay() -> None:
    log = RetainedLog(block_bytes=40)
    for number in range(10):
        add(log, b"%010d" % number)
    assert log.block(0) is not None
    log.release(3)
    assert log.base == 3
    assert log.number_at(3) == 3
    log.release(5)
    later = log.block(log.number_at(7))
    assert later is not None
    assert later.first == 7
    log.release(10)
    assert (log.base, log.memory_bytes) == (10, 0)


def test_the_oldest_goes_to_the_spool_first_and_frees_its_segment() -> None:
    log = RetainedLog(block_bytes=40)
    ledger = SpoolLedger(30)
    for number in range(6):
        add(log, b"%010d" % number)
    places: list[SpoolPlace] = []
    for _ in range(4):
        retained = log.oldest_in_memory()
        assert retained is not None
        places.append(ledger.place(retained.size))
        log.spooling(places[-1])
        assert log.retained_bytes == 84
        log.spooled(retained)
    assert [place.segment for place in places] == [0, 0, 0, 1]
    assert (log.memory_bytes, log.spool_bytes) == (28, 56)
    freed = [ledger.free(place) for place in log.release(4)]
    assert freed == [None, None, 0, 1]
    assert ledger.segments == ()
    assert log.retained_bytes == 28


def test_a_trickle_of_records_does_not_cost_a_header_each() -> None:
    log = RetainedLog(block_bytes=10_000)
    cursor = log.cursor()
    cursor.number = 0
    for number in range(5000):
        add(log, b"%08d" % number)
        retained = log.block(cursor.number)
        assert retained is not None
        assert (retained.first, retained.count) == (number, 1)
        cursor.number += 1
    assert len(log._index) < 40
    cursor.number = log.number_at(1234)
    again: list[bytes] = []
    while (retained := log.block(cursor.number)) is not None:
        assert retained.body is not None
        again += unpack(Block(Kind.DATA, retained.first, retained.count, retained.body))
        cursor.number += 1
    first = log._index[log.number_at(1234)].first
    assert again == [b"%08d" % number for number in range(first, 5000)]


def test_nothing_is_folded_that_somebody_has_still_to_read() -> None:
    log = RetainedLog()
    fast, slow = log.cursor(), log.cursor()
    fast.number = slow.number = 0
    for number in range(8):
        add(log, b"%d" % number)
        log.block(fast.number)
        fast.number += 1
    assert len(log._index) == 8
    slow.number = 8
    add(log, b"8")
    log.block(fast.number)
    assert len(log._index) == 2
    assert (fast.number, slow.number) == (1, 1)


def test_the_last_records_of_a_stream_may_go_to_the_spool() -> None:
    """Else one that holds more than its limit in memory would stand still at its end."""
    log = RetainedLog(block_bytes=400)
    add(log, b"last")
    log.end()
    retained = log.oldest_in_memory()
    assert log.spoolable
    assert retained is not None
    assert (retained.first, retained.count) == (0, 1)
