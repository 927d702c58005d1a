"""What is kept, what is joined, what goes to the spool, what is let go."""

from __future__ import annotations

from services.streams.block import Block, Kind, pack, unpack
from services.streams.retention import SpoolLedger, Track
from services.streams.shelf import SpoolPlace


def add(track: Track, *records: bytes) -> None:
    track.append(len(records), pack(records))


def test_small_blocks_join_until_somebody_takes_them() -> None:
    track = Track()
    for letter in (b"a", b"b", b"c"):
        add(track, letter)
    kept = track.block(0)
    assert kept is not None
    assert (kept.first, kept.count, kept.body) == (0, 3, pack([b"a", b"b", b"c"]))
    assert track.block(1) is None
    add(track, b"d")
    later = track.block(1)
    assert later is not None
    assert (later.first, later.count, later.mark) == (3, 1, kept.size)


def test_a_large_block_stays_as_it_is() -> None:
    track = Track(block_bytes=400)
    add(track, b"small")
    body = pack([b"x" * 200])
    track.append(1, body)
    large = track.block(1)
    assert large is not None
    assert large.body is body
    assert [track.number_at(sequence) for sequence in (0, 1, 2)] == [0, 1, 2]


def test_only_whole_blocks_are_let_go_and_numbers_stay() -> None:
    track = Track(block_bytes=40)
    for number in range(10):
        add(track, b"%010d" % number)
    assert track.block(0) is not None
    track.release(3)
    assert track.base == 3
    assert track.number_at(3) == 3
    track.release(5)
    later = track.block(track.number_at(7))
    assert later is not None
    assert later.first == 7
    track.release(10)
    assert (track.base, track.memory_bytes) == (10, 0)


def test_the_oldest_goes_to_the_spool_first_and_frees_its_segment() -> None:
    track = Track(block_bytes=40)
    ledger = SpoolLedger(30)
    for number in range(6):
        add(track, b"%010d" % number)
    places: list[SpoolPlace] = []
    for _ in range(4):
        kept = track.oldest_in_memory()
        assert kept is not None
        places.append(ledger.place(kept.size))
        track.spooling(places[-1])
        assert track.retained_bytes == 84
        track.spooled(kept)
    assert [place.segment for place in places] == [0, 0, 0, 1]
    assert (track.memory_bytes, track.spool_bytes) == (28, 56)
    freed = [ledger.free(place) for place in track.release(4)]
    assert freed == [None, None, 0, 1]
    assert ledger.segments == ()
    assert track.retained_bytes == 28


def test_a_trickle_of_records_does_not_cost_a_header_each() -> None:
    track = Track(block_bytes=10_000)
    cursor = track.cursor()
    cursor.number = 0
    for number in range(5000):
        add(track, b"%08d" % number)
        kept = track.block(cursor.number)
        assert kept is not None
        assert (kept.first, kept.count) == (number, 1)
        cursor.number += 1
    assert len(track._kept) < 40
    cursor.number = track.number_at(1234)
    again: list[bytes] = []
    while (kept := track.block(cursor.number)) is not None:
        assert kept.body is not None
        again += unpack(Block(Kind.DATA, kept.first, kept.count, kept.body))
        cursor.number += 1
    first = track._kept[track.number_at(1234)].first
    assert again == [b"%08d" % number for number in range(first, 5000)]


def test_nothing_is_folded_that_somebody_has_still_to_read() -> None:
    track = Track()
    fast, slow = track.cursor(), track.cursor()
    fast.number = slow.number = 0
    for number in range(8):
        add(track, b"%d" % number)
        track.block(fast.number)
        fast.number += 1
    assert len(track._kept) == 8
    slow.number = 8
    add(track, b"8")
    track.block(fast.number)
    assert len(track._kept) == 2
    assert (fast.number, slow.number) == (1, 1)


def test_the_last_records_of_a_stream_may_go_to_the_spool() -> None:
    """Else one that holds more than its limit in memory would stand still at its end."""
    track = Track(block_bytes=400)
    add(track, b"last")
    track.end()
    kept = track.oldest_in_memory()
    assert track.spoolable
    assert kept is not None
    assert (kept.first, kept.count) == (0, 1)
