"""A digest says which records there were, whichever way they were cut into blocks and reckoned."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.streams.block import Block, Kind, pack, without_head
from services.streams.checksum import crc32c
from services.streams.digest import Digest, RunningDigest
from services.streams.retained_log import RetainedLog

RECORD = st.one_of(
    st.binary(max_size=40), st.binary(min_size=1, max_size=4).map(lambda b: b * 9000)
)
RECORDS = st.lists(RECORD, min_size=1, max_size=12)


@dataclass
class Later:
    """A large block that somebody sends some time after it came."""

    count: int
    size: int
    crc: int | None = None


def data(records: list[bytes], *, checked: bool = False) -> Block:
    body = pack(records)
    return Block(Kind.DATA, 0, len(records), body, crc32c(body) if checked else None)


def cut(records: list[bytes], cuts: list[int]) -> list[list[bytes]]:
    groups: list[list[bytes]] = []
    at = turn = 0
    while at < len(records):
        step = cuts[turn % len(cuts)]
        groups.append(records[at : at + step])
        at += step
        turn += 1
    return groups


@given(RECORDS, st.lists(st.integers(1, 5), min_size=1), st.integers(0, 2**40), st.data())
def test_it_does_not_depend_on_the_blocks(
    records: list[bytes], cuts: list[int], first: int, draw: st.DataObject
) -> None:
    whole = Digest(first).after(data(records))
    one = Digest(first)
    for group in cut(records, cuts):
        block = data(group, checked=draw.draw(st.booleans()))
        some = draw.draw(st.integers(0, len(group)))
        halfway = one.after_some(block, some)
        one = one.after(block)
        if some < len(group):
            assert halfway.after(without_head(block, some)) == one
        else:
            assert halfway == one
    assert one == whole


@given(RECORDS, RECORDS)
def test_other_records_have_another_digest(one: list[bytes], two: list[bytes]) -> None:
    # CRC-32C finds every burst of up to 32 bits; that it finds all of these is what is tried here.
    same = Digest(0).after(data(one)) == Digest(0).after(data(two))
    assert same == (one == two)


@given(RECORDS, st.lists(st.integers(1, 5), min_size=1), st.data())
def test_blocks_may_be_reckoned_late_and_in_any_order(
    records: list[bytes], cuts: list[int], draw: st.DataObject
) -> None:
    running = RunningDigest(3)
    waiting: list[tuple[Later, bytes]] = []
    for group in cut(records, cuts):
        body = pack(group)
        if draw.draw(st.booleans()):
            running.add(body[: 4 * len(group)], body[4 * len(group) :])
        else:
            later = Later(len(group), len(body))
            running.add_later(later, body)
            waiting.append((later, body))
    for later, body in draw.draw(st.permutations(waiting)):
        assert running.digest() is None
        later.crc = crc32c(body)
        running.gone(later)
    assert running.digest() == Digest(3).after(data(records))


@given(RECORDS)
def test_a_block_that_is_let_go_of_before_it_was_reckoned_ends_the_counting(
    records: list[bytes],
) -> None:
    running = RunningDigest()
    later = Later(len(records), 7)
    running.add_later(later, pack(records))
    running.gone(later)
    running.add(b"\0\0\0\0", b"")
    assert running.digest() is None


@given(st.lists(RECORDS, min_size=1, max_size=6))
def test_a_track_counts_what_it_was_given(groups: list[list[bytes]]) -> None:
    log = RetainedLog(block_bytes=400)
    for group in groups:
        log.append(len(group), pack(group))
    for number in range(len(groups) + 1):
        retained = log.block(number)
        if retained is None:
            break
        log.reckon(number)
    everything = [record for group in groups for record in group]
    assert log.digest() == Digest(0).after(data(everything))
