"""What a consumer does when a lane's records are not those that the producer sent."""

from __future__ import annotations

import pytest

from services.streams.digest import Digest
from services.streams.effects import DialLane, HangUpLane, ReportFailed, ShutPort
from services.streams.events import (
    Attached,
    DialAccepted,
    DialBlock,
    DialBroken,
    DialEnded,
    PortWritten,
)
from services.streams.receiver import ReceiveLane
from shoal.backoff import Backoff
from shoal.model import ReasonCode, StreamCounters
from tests.unit.streams.test_machine import IN, Bench, accepted, data, in_lane, peer, sink

FIRST = [b"a", b"b", b"c"]


def begun() -> Bench:
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.post(PortWritten("in", output=False))  # START
    return bench


def counters(bench: Bench) -> StreamCounters:
    return bench.machine.counters(bench.now)[0]


def digest_of(records: list[bytes], first: int = 0) -> Digest:
    return Digest(first).after(data(records))


def test_the_end_is_shown_when_the_digests_agree() -> None:
    bench = begun()
    bench.post(DialBlock(IN, 1, data(FIRST[:2])))
    bench.post(DialBlock(IN, 1, data(FIRST[2:], 2)))
    bench.post(DialEnded(IN, 1, 3, digest=digest_of(FIRST)))
    bench.post(PortWritten("in", output=False))
    bench.post(PortWritten("in", output=False))
    bench.only(ShutPort)
    assert (counters(bench).broken, counters(bench).mismatches) == (0, 0)


def test_within_one_run_it_breaks_the_lane_and_what_waits_is_asked_for_again() -> None:
    bench = begun()
    bench.post(DialBlock(IN, 1, data([b"a"])))
    bench.post(DialBlock(IN, 1, data([b"?", b"c"], 1)))  # waits while the first is written
    bench.post(DialEnded(IN, 1, 3, digest=digest_of(FIRST)))
    bench.only(HangUpLane)
    assert counters(bench).broken == 1
    [again] = [effect for effect in bench.machine.tick(1.0) if isinstance(effect, DialLane)]
    assert again.want == 1
    bench.post(DialAccepted(IN, 2, 3, 1))
    bench.post(DialBlock(IN, 2, data([b"b", b"c"], 1)))
    bench.post(DialEnded(IN, 2, 3, digest=digest_of(FIRST)))
    bench.post(PortWritten("in", output=False))
    bench.post(PortWritten("in", output=False))
    bench.only(ShutPort)


def test_when_it_stays_the_attempt_fails_and_says_what_differs() -> None:
    bench = begun()
    bench.post(DialBlock(IN, 1, data([b"?", b"b", b"c"])))
    bench.post(DialEnded(IN, 1, 3, digest=digest_of(FIRST)))
    bench.machine.tick(1.0)
    bench.post(DialAccepted(IN, 2, 3, 3))
    bench.post(DialEnded(IN, 2, 3, digest=digest_of(FIRST)))
    failed = bench.only(ReportFailed)
    assert failed.code is ReasonCode.STREAM
    for words in (IN, "of 3 records", str(digest_of(FIRST)), str(digest_of([b"?", b"b", b"c"]))):
        assert words in failed.message


def test_when_the_producer_was_run_again_it_is_counted_and_the_job_goes_on() -> None:
    bench = begun()
    bench.post(DialBlock(IN, 1, data([b"?"])))
    bench.move({IN: peer("elsewhere:1", 4)})
    bench.post(DialAccepted(IN, 2, 4, 0))
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(IN, 2, data(FIRST)))  # the first of them is dropped
    bench.post(DialEnded(IN, 2, 3, digest=digest_of(FIRST)))
    bench.post(PortWritten("in", output=False))
    bench.only(ShutPort)
    assert (counters(bench).broken, counters(bench).mismatches) == (0, 1)
    bench.post(DialBroken(IN, 2, "UNAVAILABLE"))
    bench.machine.tick(bench.now + 1)
    bench.post(DialAccepted(IN, 3, 4, 3))
    bench.post(DialEnded(IN, 3, 3, digest=digest_of(FIRST)))
    assert counters(bench).mismatches == 1, "it is the same lane"


@pytest.mark.parametrize("digest", [None, digest_of([b"c"], 2)])
def test_what_was_not_counted_from_the_same_record_is_not_compared(digest: Digest | None) -> None:
    bench = begun()
    bench.post(DialBlock(IN, 1, data(FIRST)))
    bench.post(DialEnded(IN, 1, 3, digest=digest))
    bench.post(PortWritten("in", output=False))
    bench.only(ShutPort)
    assert (counters(bench).broken, counters(bench).mismatches) == (0, 0)


@pytest.mark.parametrize(
    ("reason", "refused", "broken"),
    [
        ("UNAVAILABLE", 0, 0),
        ("NOT_READY", 0, 0),
        ("UNKNOWN_LANE", 0, 0),
        ("FENCED", 1, 0),
        ("BEHIND", 1, 0),
        ("BROKEN", 0, 1),
    ],
)
def test_refusals_and_mistakes_are_counted_and_a_lost_link_is_neither(
    reason: str, refused: int, broken: int
) -> None:
    bench = begun()
    bench.post(DialBroken(IN, 1, reason))
    assert (counters(bench).refused, counters(bench).broken) == (refused, broken)


def test_a_producer_of_an_older_epoch_is_refused_and_a_gap_is_a_mistake() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    bench.post(DialAccepted(IN, 1, 2, 0))
    assert (counters(bench).refused, counters(bench).broken) == (1, 0)
    bench = begun()
    bench.post(DialBlock(IN, 1, data([b"e"], 4)))
    assert (counters(bench).refused, counters(bench).broken) == (0, 1)


def test_a_lane_whose_records_were_passed_over_is_not_compared() -> None:
    """What is passed over never comes, so that what came is not all that was sent."""
    lane = ReceiveLane(
        in_lane(), epoch=7, credit_bytes=1000, backoff=Backoff(0.1, 1.0), chance=lambda: 0.5
    )
    lane.moved(peer("there:1", 3), may_dial=True)
    records = [b"a", b"b", b"c", b"d", b"e", b"f"]
    lane.begin(0)
    lane.dial()
    lane.accepted(DialAccepted(IN, 1, 3, 0))
    lane.received(data(records[:3]))
    lane.pass_to(5)
    lane.dial()
    lane.accepted(DialAccepted(IN, 2, 3, 5))
    lane.received(data(records[5:], 5))
    lane.ended(DialEnded(IN, 2, 6, digest=digest_of(records)))
    assert (lane.total, lane.mismatches) == (6, 0)
