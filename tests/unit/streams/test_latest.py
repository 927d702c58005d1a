"""Lanes to consumers that want the newest records alone (case F10)."""

from __future__ import annotations

import json
from dataclasses import replace

from services.streams.block import HEADER_BYTES, Block, Kind, decode, encode, pack, unpack
from services.streams.effects import (
    AcceptCall,
    Acknowledge,
    DialLane,
    PausePort,
    SendBlock,
    SendEnd,
    WritePort,
)
from services.streams.events import (
    Attached,
    CallAcknowledged,
    CallClosed,
    CallOpened,
    CallReady,
    Concluded,
    DialAccepted,
    DialBlock,
    DialEnded,
    PortBlock,
    PortWritten,
)
from services.streams.latest import NewestLog
from services.streams.machine import Stage
from services.streams.plan import (
    AttemptPlan,
    InputPlan,
    OutputPlan,
    StreamLimits,
)
from shoal.session.lane import Lane
from shoal.spec import PortBinding, PortFormat
from tests.unit.streams.test_machine import Bench, data, in_lane, out_lane, peer, plan

OUT = "a.out/b.in"
IN = "z.out/a.in"


def to_viewer(keep: int = 1) -> Lane:
    return replace(out_lane(), keep=keep)


def producer(*lanes: Lane, resume: bool = False, replacement: bool = False) -> AttemptPlan:
    outputs = (OutputPlan("out", PortBinding(), lanes or (to_viewer(),)),)
    return plan(outputs=outputs, resume=resume, replacement=replacement)


def viewer(port_format: PortFormat = PortFormat.BLOCKS, *, resume: bool = False) -> AttemptPlan:
    lane = replace(in_lane(), keep=1)
    inputs = (InputPlan("in", PortBinding(port_format), (lane,)),)
    return plan(inputs=inputs, resume=resume, peers={IN: peer("far:1", 3)})


def opened(call: int = 1, want: int = 0, *, consumer_epoch: int = 1) -> CallOpened:
    return CallOpened(call, OUT, consumer_epoch, 7, want, 4 << 20)


def sent(bench: Bench) -> tuple[int, list[bytes], int]:
    """First sequence, records and bytes on the wire of the block that was sent."""
    effect = bench.only(SendBlock)
    block = decode(effect.header + effect.body)
    return block.first, unpack(block), len(effect.body) + HEADER_BYTES


def wrote(records: list[bytes], first: int) -> PortBlock:
    return PortBlock("out", True, data(records, first))


def test_a_track_of_the_newest_keeps_so_many_records_and_counts_the_rest() -> None:
    log = NewestLog(keep=3, bytes_max=100)
    log.offer(2, [pack([b"a"]), pack([b"b"])])
    log.offer(4, [pack([b"d"]), pack([b"e"]), pack([b"f"])])
    assert (log.base, log.next, log.dropped) == (3, 6, 3)
    retained = log.since(0)
    assert retained is not None
    assert retained.body is not None
    assert (retained.first, retained.count) == (3, 3)
    assert unpack(Block(Kind.DATA, 3, 3, bytes(retained.body))) == [b"d", b"e", b"f"]
    assert log.since(6) is None


def test_a_track_of_the_newest_is_bounded_in_bytes_but_for_one_record() -> None:
    log = NewestLog(keep=1000, bytes_max=100)
    for number in range(50):
        log.offer(1, [pack([b"%030d" % number])])
    assert (log.memory_bytes, log.base, log.dropped) == (2 * 34, 48, 48)
    log.offer(1, [pack([b"x" * 5000])])
    assert (log.base, log.next, log.memory_bytes) == (50, 51, 5004)


def test_f10_a_producer_is_never_held_up_and_the_next_block_is_what_is_newest() -> None:
    bench = Bench(producer(), StreamLimits(backlog_bytes=1000, credit_bytes=1000))
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote([b"first"], 0))
    first, records, size = sent(bench)
    assert (first, records) == (0, [b"first"])
    bench.post(CallReady(1, OUT))
    for number in range(1, 500):
        bench.post(wrote([b"%0100d" % number], number))
        assert bench.none(PausePort)
        assert bench.none(SendBlock), "the consumer has not taken the one before"
    [counters] = bench.machine.counters(0.0)
    assert (counters.records, counters.dropped) == (500, 498)
    assert counters.retained_bytes < 1000
    bench.post(CallAcknowledged(1, OUT, 1, 0, size))
    assert sent(bench)[:2] == (499, [b"%0100d" % 499])


def test_while_nobody_is_there_the_newest_is_kept_and_the_end_comes_after_it() -> None:
    bench = Bench(producer(to_viewer(keep=2)))
    bench.post(Attached())
    bench.post(wrote([b"a", b"b", b"c", b"d"], 0))
    bench.post(PortBlock("out", True, Block(Kind.END, 4)))
    bench.post(opened())
    assert bench.only(AcceptCall) == AcceptCall(1, 7, 0)
    first, records, _ = sent(bench)
    assert (first, records) == (2, [b"c", b"d"])
    assert bench.none(SendEnd)
    bench.post(CallReady(1, OUT))
    assert bench.only(SendEnd) == SendEnd(1, 4)
    # What was sent is still there for the consumer's replacement, or after a broken link.
    bench.post(CallClosed(1, OUT))
    bench.post(opened(2, 0, consumer_epoch=2))
    assert sent(bench)[:2] == (2, [b"c", b"d"])
    assert bench.machine.counters(0.0)[0].dropped == 2
    bench.post(CallReady(2, OUT))
    bench.post(CallClosed(2, OUT))
    bench.post(opened(3, 4, consumer_epoch=2))
    assert bench.none(SendBlock)
    assert bench.only(SendEnd) == SendEnd(3, 4)


def test_a_resuming_source_goes_on_counting_where_the_newest_is_wanted() -> None:
    bench = Bench(producer(resume=True, replacement=True))
    bench.post(Attached())
    assert bench.machine.stage is Stage.ASKING_CONSUMERS
    bench.post(opened(want=5000))
    start = bench.only(WritePort)
    assert Block(Kind.START, 5000, 0, start.parts[0][HEADER_BYTES:]) is not None
    assert int.from_bytes(start.parts[0][8:16], "little") == 5000


def test_who_wants_the_newest_does_not_hold_up_a_replacement_that_others_wait_for() -> None:
    reliable = replace(out_lane("a.out/c.in"), peer_job="c")
    bench = Bench(producer(to_viewer(), reliable, resume=True, replacement=True))
    bench.post(Attached())
    bench.post(CallOpened(1, "a.out/c.in", 1, 7, 40, 1 << 20))
    assert int.from_bytes(bench.only(WritePort).parts[0][8:16], "little") == 40


def test_gaps_are_explicit_and_counted_and_the_job_asks_by_acknowledging() -> None:
    bench = Bench(viewer())
    bench.post(Attached())
    start = [effect for effect in bench.last if isinstance(effect, WritePort)]
    assert json.loads(bytes(start[0].parts[0][HEADER_BYTES:]))["promise"] == "latest"
    bench.post(PortWritten("in", output=False))
    bench.post(DialAccepted(IN, 1, 3, 0))
    bench.post(DialBlock(IN, 1, data([b"x"], 7)))
    assert b"".join(bench.only(WritePort).parts) == encode(data([b"x"], 7))
    bench.post(PortWritten("in", output=False))
    assert bench.none(Acknowledge), "the job has it, and is not done with it"
    bench.post(PortBlock("in", False, Block(Kind.ACK, 8)))
    told = bench.only(Acknowledge)
    assert (told.consumed, told.consumed_bytes) == (8, HEADER_BYTES + 5)
    bench.post(DialBlock(IN, 1, data([b"y"], 20)))
    [counters] = bench.machine.counters(0.0)
    assert (counters.records, counters.dropped, counters.acknowledged) == (2, 19, 1)
    bench.post(PortWritten("in", output=False))
    bench.post(PortBlock("in", False, Block(Kind.ACK, 21)))
    bench.post(DialEnded(IN, 1, 21))
    assert b"".join(bench.only(WritePort).parts) == encode(Block(Kind.END, 21))


def test_a_raw_program_asks_by_reading() -> None:
    bench = Bench(viewer(PortFormat.LINES))
    bench.post(Attached())
    bench.post(DialAccepted(IN, 1, 3, 0))
    bench.post(DialBlock(IN, 1, data([b"x"], 7)))
    assert b"".join(bench.only(WritePort).parts) == b"x\n"
    bench.post(PortWritten("in", output=False))
    assert bench.only(Acknowledge).consumed == 8


def test_a_viewer_is_restarted_and_its_producer_may_have_fewer_records_the_next_time() -> None:
    bench = Bench(viewer(resume=True))
    bench.post(Attached())
    start = next(effect for effect in bench.last if isinstance(effect, WritePort))
    assert json.loads(bytes(start.parts[0][HEADER_BYTES:]))["recovery"] == "restart"
    bench.post(PortWritten("in", output=False))
    bench.post(DialAccepted(IN, 1, 3, 0))
    bench.post(DialBlock(IN, 1, data([b"x"], 99)))
    bench.post(PortWritten("in", output=False))
    bench.post(PortBlock("in", False, Block(Kind.ACK, 100)))
    bench.move({IN: peer("far:2", 4)})
    assert bench.only(DialLane).want == 100
    bench.post(DialAccepted(IN, 2, 4, 100))
    bench.post(DialEnded(IN, 2, 60))
    assert bench.machine.failure is None
    assert b"".join(bench.only(WritePort).parts) == encode(Block(Kind.END, 100))
    bench.post(PortWritten("in", output=False))
    bench.post(Concluded(succeeded=True))
    assert bench.machine.drained
