"""P15: what is known of blocks in the spool takes little room, and is the same as before."""

from __future__ import annotations

import random
import sys

import pytest

from services.streams.block_index import BlockIndex, RetainedBlock, SpoolPlace
from services.streams.retained_log import RetainedLog


def _spooled(number: int) -> RetainedBlock:
    place = SpoolPlace(number // 3, number % 3 * 50, 50)
    return RetainedBlock(
        number * 4, 4, 50, number * 50, None, place, None if number % 2 else number
    )


def test_p15_settled_blocks_read_as_they_were() -> None:
    index = BlockIndex()
    blocks = [_spooled(number) for number in range(6)]
    blocks.append(RetainedBlock(24, 1, 9, 300, b"in memory"))
    for block in blocks:
        index.append(block)
    index.settle()
    assert index.settled == 6
    assert list(index) == blocks
    assert [index[at] for at in range(len(index))] == blocks
    assert index[-1] is blocks[-1]
    with pytest.raises(IndexError):
        index[7]


def test_p15_a_block_that_is_still_being_written_is_not_settled() -> None:
    index = BlockIndex()
    writing = _spooled(0)
    writing.body = b"on its way"
    index.append(writing)
    index.append(_spooled(1))
    index.settle()
    assert (index.settled, index[0]) == (0, writing)


def test_p15_an_index_is_a_list_whatever_is_done_to_it() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    chance = random.Random(seed)
    index, model = BlockIndex(), list[RetainedBlock]()
    for number in range(6000):
        block = _spooled(number)
        index.append(block)
        model.append(block)
        if chance.random() < 0.3:
            index.settle()
        if chance.random() < 0.02:
            count = chance.randrange(len(model) // 2 + 1)
            index.drop(count)
            del model[:count]
        if model:
            at = chance.randrange(len(model))
            assert (len(index), index[at]) == (len(model), model[at])
    assert list(index) == model
    index.drop(len(model))
    assert len(index) == 0


def test_p15_a_spooled_block_takes_less_than_fifty_bytes() -> None:
    index = BlockIndex()
    for number in range(20_000):
        index.append(_spooled(number))
        index.settle()
    assert sys.getsizeof(index._rows) < 50 * 20_000


def test_p15_a_track_gives_its_spooled_blocks_back_by_number_and_by_sequence() -> None:
    log = RetainedLog(block_bytes=40)
    for number in range(50):
        log.append(1, (10).to_bytes(4, "little") + b"%010d" % number)
        log.append(1, (40).to_bytes(4, "little") + b"x" * 40)
    while (retained := log.oldest_in_memory()) is not None:
        place = SpoolPlace(0, retained.offset, retained.size)
        log.spooling(place)
        log.spooled(retained)
    assert (log.memory_bytes, log.spool_bytes) == (0, 50 * 58)
    for sequence in (0, 1, 31, 98):
        block = log.block(log.number_at(sequence))
        assert block is not None
        assert (block.first, block.body) == (sequence, None)
        assert block.place == SpoolPlace(0, block.offset, block.size)
        assert log.offset_at(log.number_at(sequence)) == block.offset
    assert len(log.release(60)) == 60
    assert (log.base, log.spool_bytes) == (60, 20 * 58)
