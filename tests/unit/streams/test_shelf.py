"""P15: what is known of blocks in the spool takes little room, and is the same as before."""

from __future__ import annotations

import random
import sys

import pytest

from services.streams.retention import Track
from services.streams.shelf import Kept, Shelf, SpoolPlace


def _spooled(number: int) -> Kept:
    place = SpoolPlace(number // 3, number % 3 * 50, 50)
    return Kept(number * 4, 4, 50, number * 50, None, place, None if number % 2 else number)


def test_p15_settled_blocks_read_as_they_were() -> None:
    shelf = Shelf()
    blocks = [_spooled(number) for number in range(6)]
    blocks.append(Kept(24, 1, 9, 300, b"in memory"))
    for block in blocks:
        shelf.append(block)
    shelf.settle()
    assert shelf.settled == 6
    assert list(shelf) == blocks
    assert [shelf[index] for index in range(len(shelf))] == blocks
    assert shelf[-1] is blocks[-1]
    with pytest.raises(IndexError):
        shelf[7]


def test_p15_a_block_that_is_still_being_written_is_not_settled() -> None:
    shelf = Shelf()
    writing = _spooled(0)
    writing.body = b"on its way"
    shelf.append(writing)
    shelf.append(_spooled(1))
    shelf.settle()
    assert (shelf.settled, shelf[0]) == (0, writing)


def test_p15_a_shelf_is_a_list_whatever_is_done_to_it() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    chance = random.Random(seed)
    shelf, model = Shelf(), list[Kept]()
    for number in range(6000):
        block = _spooled(number)
        shelf.append(block)
        model.append(block)
        if chance.random() < 0.3:
            shelf.settle()
        if chance.random() < 0.02:
            count = chance.randrange(len(model) // 2 + 1)
            shelf.drop(count)
            del model[:count]
        if model:
            index = chance.randrange(len(model))
            assert (len(shelf), shelf[index]) == (len(model), model[index])
    assert list(shelf) == model
    shelf.drop(len(model))
    assert len(shelf) == 0


def test_p15_a_spooled_block_takes_less_than_fifty_bytes() -> None:
    shelf = Shelf()
    for number in range(20_000):
        shelf.append(_spooled(number))
        shelf.settle()
    assert sum(sys.getsizeof(column) for column in shelf._columns()) < 50 * 20_000


def test_p15_a_track_gives_its_spooled_blocks_back_by_number_and_by_sequence() -> None:
    track = Track(block_bytes=40)
    for number in range(50):
        track.append(1, (10).to_bytes(4, "little") + b"%010d" % number)
        track.append(1, (40).to_bytes(4, "little") + b"x" * 40)
    while (kept := track.oldest_in_memory()) is not None:
        place = SpoolPlace(0, kept.mark, kept.size)
        track.spooling(place)
        track.spooled(kept)
    assert (track.memory_bytes, track.spool_bytes) == (0, 50 * 58)
    for sequence in (0, 1, 31, 98):
        block = track.block(track.number_at(sequence))
        assert block is not None
        assert (block.first, block.body) == (sequence, None)
        assert block.place == SpoolPlace(0, block.mark, block.size)
        assert track.mark_at(track.number_at(sequence)) == block.mark
    assert len(track.release(60)) == 60
    assert (track.base, track.spool_bytes) == (60, 20 * 58)
