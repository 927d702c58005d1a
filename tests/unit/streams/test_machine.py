"""One attempt's streams, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from services.streams.block import HEADED, HEADER_BYTES, Block, Kind, decode, encode, pack, unpack
from services.streams.block_index import SpoolPlace
from services.streams.digest import Digest
from services.streams.effects import (
    AcceptCall,
    Acknowledge,
    CloseCall,
    DialLane,
    DropSegment,
    Effect,
    HangUpLane,
    PausePort,
    ReadPort,
    RefuseCall,
    ReportDrained,
    ReportFailed,
    SendBlock,
    SendEnd,
    ShutPort,
    WritePort,
    WriteSpool,
)
from services.streams.events import (
    Attached,
    CallAcknowledged,
    CallClosed,
    CallDone,
    CallOpened,
    CallReady,
    Concluded,
    Detached,
    DialAccepted,
    DialBlock,
    DialBroken,
    DialEnded,
    Event,
    LanesChanged,
    PortBlock,
    PortClosed,
    PortShut,
    PortViolation,
    PortWritten,
    ShellFailed,
    SpoolWritten,
)
from services.streams.machine import AttemptStreamsMachine, Stage
from services.streams.plan import AttemptPlan, InputPlan, OutputPlan, StreamLimits
from shoal.model import ReasonCode
from shoal.session.lane import WANT_KEPT, WANT_NOTHING, Lane, LanePeer
from shoal.spec import Distribute, PortBinding, PortFormat

T = TypeVar("T", bound=Effect)

OUT = "a.out/b.in"
IN = "z.out/a.in"


class Bench:
    """A machine with a clock, and what it asked for so far."""

    def __init__(self, plan: AttemptPlan, limits: StreamLimits | None = None) -> None:
        self.machine = AttemptStreamsMachine(plan, limits or StreamLimits(), lambda: 0.5)
        lanes = [lane for port in plan.inputs for lane in port.lanes]
        lanes += [lane for port in plan.outputs for lane in port.lanes]
        self.lanes = {lane.id: lane for lane in lanes}
        self.now = 0.0
        self.last: Sequence[Effect] = ()

    def post(self, event: Event) -> Sequence[Effect]:
        if isinstance(event, LanesChanged):
            self.lanes |= {lane.id: lane for lane in event.lanes}
        self.last = self.machine.handle(event, self.now)
        return self.last

    def move(self, peers: Mapping[str, LanePeer]) -> Sequence[Effect]:
        """Tell all lanes, with these peers."""
        self.lanes |= {name: replace(self.lanes[name], peer=peer) for name, peer in peers.items()}
        return self.post(LanesChanged(tuple(self.lanes.values())))

    def only(self, kind: type[T]) -> T:
        found = [effect for effect in self.last if isinstance(effect, kind)]
        assert len(found) == 1, self.last
        return found[0]

    def none(self, kind: type[Effect]) -> bool:
        return not any(isinstance(effect, kind) for effect in self.last)

    def failure(self) -> ReportFailed:
        assert self.machine.failure is not None
        return self.machine.failure


def peer(address: str = "", epoch: int = 0, *, done: bool = False) -> LanePeer:
    return LanePeer(address, "", epoch, done)


def out_lane(name: str = OUT, *, replica: int = 0, replicas: int = 1) -> Lane:
    return Lane(name, True, "out", replica, replicas, peer_port="in", peer_job="b")


def in_lane(name: str = IN, *, replica: int = 0, replicas: int = 1) -> Lane:
    return Lane(name, False, "in", replica, replicas, peer_port="out", peer_job="z")


def plan(
    *,
    inputs: tuple[InputPlan, ...] = (),
    outputs: tuple[OutputPlan, ...] = (),
    resume: bool = False,
    replacement: bool = False,
    peers: dict[str, LanePeer] | None = None,
    epoch: int = 7,
) -> AttemptPlan:
    def placed(lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        return tuple(replace(one, peer=(peers or {}).get(one.id, one.peer)) for one in lanes)

    return AttemptPlan(
        *(epoch, resume, replacement, 0, 1),
        tuple(replace(port, lanes=placed(port.lanes)) for port in inputs),
        tuple(replace(port, lanes=placed(port.lanes)) for port in outputs),
    )


def key_lane(replica: int, job: str = "b") -> Lane:
    name = f"a.out/{job}-{replica}.in"
    return Lane(
        name, True, "out", replica, 2, peer_port="in", peer_job=job, distribute=Distribute.KEY
    )


def source(port_format: PortFormat = PortFormat.BLOCKS) -> AttemptPlan:
    return plan(outputs=(OutputPlan("out", PortBinding(port_format), (out_lane(),)),))


def sink(port_format: PortFormat = PortFormat.BLOCKS) -> AttemptPlan:
    return plan(
        inputs=(InputPlan("in", PortBinding(port_format), (in_lane(),)),),
        peers={IN: peer("there:1", 3)},
    )


def data(records: list[bytes], first: int = 0) -> Block:
    return Block(Kind.DATA, first, len(records), pack(records))


def wrote(block: Block, port: str = "out", *, output: bool = True) -> PortBlock:
    return PortBlock(port, output, block)


def opened(
    call: int = 1, *, want: int = 0, consumer: int = 1, producer: int = 7, credit: int = 1 << 20
) -> CallOpened:
    return CallOpened(call, OUT, consumer, producer, want, credit)


def accepted(bench: Bench, first: int = 0) -> None:
    dial = bench.only(DialLane)
    bench.post(DialAccepted(IN, dial.dial, 3, first))


# ---- as a producer ----------------------------------------------------------------------------------


def test_a_source_begins_at_once_and_sends_what_it_gets() -> None:
    bench = Bench(source())
    bench.post(Attached())
    assert isinstance(bench.last[0], ReadPort)
    start = bench.only(WritePort).parts[0]
    assert start[0] == Kind.START
    assert json.loads(bytes(start[HEADER_BYTES:])) == {
        "recovery": "restart",
        "epoch": 7,
        "block_count": 1,
    }
    bench.post(opened())
    assert bench.only(AcceptCall) == AcceptCall(1, 7, 0)
    bench.post(wrote(data([b"a", b"b"])))
    sent = bench.only(SendBlock)
    assert sent.header + sent.body == encode(data([b"a", b"b"]), checksum=True)
    bench.post(CallReady(1, OUT))
    bench.post(wrote(Block(Kind.END, 2)))
    digest = Digest(0).after(data([b"a", b"b"]))
    assert bench.only(SendEnd) == SendEnd(1, 2, digest=digest)


def test_while_a_block_is_leaving_records_join() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(data([b"a"])))
    for number in range(1, 4):
        bench.post(wrote(data([b"b"], number)))
        assert bench.none(SendBlock)
    bench.post(CallReady(1, OUT))
    assert bench.only(SendBlock).body == pack([b"b", b"b", b"b"])


def test_credit_bounds_what_is_in_flight_and_an_acknowledgement_renews_it() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened(credit=100))
    bench.post(wrote(data([b"x" * 500])))  # larger than the credit, and nothing else is in flight
    size = len(bench.only(SendBlock).body) + HEADER_BYTES
    bench.post(CallReady(1, OUT))
    bench.post(wrote(data([b"y"], 1)))
    assert bench.none(SendBlock)
    bench.post(CallAcknowledged(1, OUT, 1, 0, size))
    assert bench.only(SendBlock).body == pack([b"y"])


def test_a_backlog_blocks_the_job_until_it_is_sent() -> None:
    bench = Bench(source(), StreamLimits(backlog_bytes=100))
    bench.post(Attached())
    bench.post(wrote(data([b"x" * 200])))
    assert bench.only(PausePort) == PausePort("out", output=True)
    bench.now = 3.0
    assert bench.machine.counters(bench.now)[0].blocked_seconds == 3.0
    bench.post(opened())
    assert bench.only(ReadPort) == ReadPort("out", output=True)
    assert bench.machine.counters(bench.now)[0].blocked_seconds == 0.0


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (opened(producer=6), "producer epoch 7"),
        (opened(consumer=1), "belongs to consumer epoch 2"),
    ],
)
def test_an_older_epoch_is_fenced(event: CallOpened, words: str) -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.move({OUT: peer("", 2)})
    bench.post(event)
    refusal = bench.only(RefuseCall)
    assert refusal.reason == "FENCED"
    assert words in refusal.message


def test_a_newer_call_takes_a_lane_over() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened(1, consumer=2))
    bench.post(opened(2, consumer=3))
    assert bench.only(CloseCall) == CloseCall(1)
    bench.post(opened(3, consumer=2))
    assert bench.only(RefuseCall).call == 3
    bench.move({OUT: peer("", 4)})
    assert bench.only(CloseCall) == CloseCall(2)


def test_an_acknowledgement_of_what_was_never_sent_breaks_the_call() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened())
    bench.post(CallAcknowledged(1, OUT, 1, 0, 10_000))
    assert bench.only(CloseCall) == CloseCall(1)


def test_what_was_released_is_let_go_and_wanting_it_again_is_a_rewind() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(data([b"a"])))
    bench.post(CallAcknowledged(1, OUT, 1, 1, len(bench.only(SendBlock).body) + HEADER_BYTES))
    assert bench.machine.counters(0)[0].retained_bytes == 0
    bench.post(opened(2, want=0))
    assert bench.only(RefuseCall).reason == "BEHIND"
    assert bench.failure().code is ReasonCode.REWIND
    assert bench.machine.stage is Stage.FAILED


def test_an_attempt_drains_only_when_its_consumers_are_done() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(Block(Kind.END, 0)))
    bench.post(Concluded(succeeded=True))
    bench.post(CallAcknowledged(1, OUT, 0, 0, 0))
    assert not bench.machine.drained, "the consumer may still be replaced and ask for the end"
    bench.move({OUT: peer("", 1, done=True)})
    bench.only(ReportDrained)
    bench.move({OUT: peer("", 1, done=True)})
    assert bench.none(ReportDrained)


@pytest.mark.parametrize("concluded", [False, True])
def test_a_consumer_that_is_no_client_cannot_say_that_it_is_done(*, concluded: bool) -> None:
    """FAULTS, others: a stranger's `done` let the producer succeed with records nobody had."""
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(data([b"a"])))
    if concluded:
        bench.post(wrote(Block(Kind.END, 1)))
        bench.post(Concluded(succeeded=True))
    bench.post(CallDone(1, OUT))
    assert bench.only(RefuseCall).reason == "NOT_A_CLIENT"
    assert not bench.machine.drained
    assert bench.machine.counters(0)[0].refused == 1
    bench.post(opened(2, want=0))
    assert bench.only(SendBlock).retained.count == 1, "the true consumer still gets everything"


def test_a_client_says_itself_that_it_is_done_on_the_call_that_counts() -> None:
    client = replace(out_lane(), peer_job="client")
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(PortFormat.BLOCKS), (client,)),)))
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(data([b"a"])))
    bench.post(wrote(Block(Kind.END, 1)))
    bench.post(Concluded(succeeded=True))
    bench.post(opened(2, consumer=2))
    bench.post(CallDone(1, OUT))
    assert not bench.machine.drained, "the first client's call is over"
    bench.post(CallDone(2, OUT))
    bench.only(ReportDrained)


def test_an_attempt_without_outputs_drains_at_once() -> None:
    bench = Bench(plan())
    bench.post(Attached())
    bench.post(Concluded(succeeded=True))
    bench.only(ReportDrained)


def test_a_raw_output_ends_only_when_the_program_has_ended_well() -> None:
    bench = Bench(source(PortFormat.LINES))
    bench.post(Attached())
    assert bench.none(WritePort), "a raw port has no START"
    bench.post(opened())
    bench.post(wrote(data([b"one"])))
    bench.post(CallReady(1, OUT))
    bench.post(PortClosed("out", output=True, offset=4, rest=(data([b"two"], 1),)))
    assert bench.none(SendBlock)
    assert bench.none(SendEnd)
    bench.post(Concluded(succeeded=True))
    assert bench.only(SendBlock).body == pack([b"two"])
    bench.post(CallReady(1, OUT))
    assert bench.only(SendEnd).total == 2


@pytest.mark.parametrize(
    ("event", "stage"),
    [
        (Concluded(succeeded=False), Stage.ABANDONED),
        (ShellFailed("a port is gone"), Stage.FAILED),
    ],
)
def test_streams_may_end_before_they_have_begun(event: Event, stage: Stage) -> None:
    machine = AttemptStreamsMachine(source(), StreamLimits(), lambda: 0.5)
    machine.handle(event, 0.0)
    assert machine.stage is stage
    assert machine.handle(Attached(), 0.0) == []
    machine.handle(Detached(), 0.0)
    assert machine.stage is Stage.GONE


def test_a_crash_ends_nothing_and_hangs_up() -> None:
    bench = Bench(source(PortFormat.LINES))
    bench.post(Attached())
    bench.post(opened())
    bench.post(PortClosed("out", output=True, rest=(data([b"half"]),)))
    bench.post(Concluded(succeeded=False))
    assert bench.none(SendEnd)
    bench.only(CloseCall)
    bench.post(opened(2))
    assert bench.only(RefuseCall).reason == "NOT_READY"


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([wrote(data([b"a"], 1))], "DATA begins with record 1, the next one is 0"),
        ([wrote(Block(Kind.END, 3))], "END says 3 records in all, 0 came"),
        ([wrote(Block(Kind.END, 0)), wrote(Block(Kind.END, 0))], "a second END"),
        ([wrote(Block(Kind.END, 0)), wrote(data([b"a"]))], "DATA from record 0 after END"),
        ([wrote(Block(Kind.START, 0))], "START is not for the job to send on an output"),
        (
            [PortViolation("out", output=True, offset=24, reason="kind 9 does not exist")],
            "port out at offset 24: kind 9 does not exist",
        ),
        (
            [
                PortClosed(
                    "out", output=True, offset=96, unfinished="the port ended 3 bytes into a block"
                ),
                Concluded(succeeded=True),
            ],
            "port out at offset 96: the port ended 3 bytes into a block",
        ),
        ([ShellFailed("the spool: No space left on device")], "the spool: No space left"),
    ],
)
def test_what_a_job_may_not_do_fails_its_attempt(events: list[Event], words: str) -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened())
    for event in events:
        bench.post(event)
    assert bench.failure().code is ReasonCode.STREAM
    assert words in bench.failure().message
    assert bench.machine.stage is Stage.FAILED
    assert bench.post(wrote(data([b"late"]))) == []


def test_retention_above_its_limit_is_spooled_and_a_slow_disk_blocks_the_job() -> None:
    bench = Bench(
        source(), StreamLimits(memory_bytes=100, spooling_bytes=100, backlog_bytes=10_000)
    )
    bench.post(Attached())
    bench.post(opened())
    places: list[SpoolPlace] = []
    for number in range(4):
        bench.post(wrote(data([b"x" * 66_000], number)))
        places += [effect.place for effect in bench.last if isinstance(effect, WriteSpool)]
        bench.post(CallReady(1, OUT))
    assert len(places) == 4
    assert bench.machine.counters(0)[0].blocked_seconds == 0
    for place in places:
        bench.post(SpoolWritten(place))
    bench.only(ReadPort)
    bench.post(Detached())
    bench.only(DropSegment)
    assert bench.machine.stage is Stage.GONE


def test_progress_is_kept() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(wrote(Block(Kind.PROGRESS, 0, 0, "half way \xe9".encode())))
    assert bench.machine.progress == "half way \xe9"


# ---- as a consumer ----------------------------------------------------------------------------------


def test_a_sink_dials_and_hands_records_over_one_write_at_a_time() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    dial = bench.only(DialLane)
    assert (dial.address, dial.consumer_epoch, dial.producer_epoch, dial.want) == (
        "there:1",
        7,
        3,
        0,
    )
    accepted(bench)
    bench.post(PortWritten("in", output=False))  # START
    bench.post(DialBlock(IN, 1, data([b"a", b"b"])))
    assert b"".join(bench.only(WritePort).parts) == encode(data([b"a", b"b"]))
    bench.post(DialBlock(IN, 1, data([b"c"], 2)))
    assert bench.none(WritePort)
    bench.post(PortWritten("in", output=False))
    assert b"".join(bench.only(WritePort).parts) == encode(data([b"c"], 2))
    bench.post(DialEnded(IN, 1, 3))
    bench.post(PortWritten("in", output=False))
    assert bench.only(WritePort).parts[0] == encode(Block(Kind.END, 3))
    assert isinstance(bench.last[-1], ShutPort)


def test_duplicates_are_dropped_and_a_gap_breaks_the_lane() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(IN, 1, data([b"a", b"b"])))
    bench.post(DialBlock(IN, 1, data([b"a"])))
    bench.post(DialBlock(IN, 1, data([b"b", b"c"], 1)))
    assert bench.machine.counters(0)[0].duplicates == 2
    bench.post(DialBlock(IN, 1, data([b"e"], 4)))
    bench.only(HangUpLane)
    again = [effect for effect in bench.machine.tick(1.0) if isinstance(effect, DialLane)]
    assert [dial.want for dial in again] == [2], "what waited for the job is asked for again"


def test_a_producer_that_moved_is_dialled_at_once() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.move({IN: peer("elsewhere:2", 4)})
    bench.only(HangUpLane)
    assert bench.only(DialLane).producer_epoch == 4
    bench.move({IN: peer("there:1", 3)})
    assert bench.none(DialLane), "late news of an older epoch"
    bench.post(DialAccepted(IN, 2, 3, 0))
    bench.only(HangUpLane)  # an older producer


def test_a_refused_lane_is_dialled_again_more_and_more_slowly() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    waits: list[float] = []
    for number in range(1, 9):
        bench.post(DialBroken(IN, number, "NOT_READY"))
        deadline = bench.machine.deadline()
        assert deadline is not None
        waits.append(deadline - bench.now)
        bench.now = deadline
        bench.machine.tick(bench.now)
    assert waits[0] == pytest.approx(0.025)
    assert waits[-1] == pytest.approx(0.25)
    assert waits == sorted(waits)


def test_consumption_is_acknowledged_after_a_while() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(IN, 1, data([b"a"])))
    bench.post(PortWritten("in", output=False))
    assert bench.none(Acknowledge)
    deadline = bench.machine.deadline()
    assert deadline is not None
    [ack] = bench.machine.tick(deadline)
    assert ack == Acknowledge(IN, 1, 1, 0, 5 + HEADER_BYTES)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (Block(Kind.ACK, 5), "ACK 5 is above 0"),
        (data([b"a"]), "DATA is not for the job to send on an input"),
    ],
)
def test_what_a_job_may_not_send_on_an_input(block: Block, words: str) -> None:
    bench = Bench(sink())
    bench.post(Attached())
    bench.post(wrote(block, "in", output=False))
    assert words in bench.failure().message


def test_a_record_that_a_raw_input_cannot_take_fails_the_consumer() -> None:
    bench = Bench(sink(PortFormat.U32))
    bench.post(Attached())
    accepted(bench)
    bench.post(DialBlock(IN, 1, data([b"four", b"toolong"])))
    assert "record 1 has 7 bytes, and the port takes 4" in bench.failure().message


def test_a_producer_that_sends_less_when_run_again_fails_the_consumer() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(IN, 1, data([b"a", b"b"])))
    bench.move({IN: peer("there:1", 4)})
    bench.post(DialAccepted(IN, 2, 4, 2))
    bench.post(DialEnded(IN, 2, 1))
    assert "ended after 1 records, and 2 were received" in bench.failure().message


def test_a_job_that_reads_no_more_lets_everything_pass() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.post(PortShut("in", output=False))
    for number in range(100):
        bench.post(DialBlock(IN, 1, data([b"x" * 100_000], number)))
        assert bench.none(WritePort)
        assert bench.none(HangUpLane)
    bench.post(DialEnded(IN, 1, 100))
    assert bench.machine.counters(0)[0].ended


def test_a_job_that_ends_well_before_its_input_wants_nothing_more() -> None:
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(IN, 1, data([b"0", b"1"])))
    bench.post(Concluded(succeeded=True))
    dial = bench.only(DialLane)
    assert (dial.want, dial.had) == (WANT_NOTHING, 2)
    bench.only(ReportDrained)


def test_records_of_several_producers_come_as_they_arrive_if_asked_so() -> None:
    lanes = tuple(in_lane(f"z-{index}.out/a.in", replica=index, replicas=2) for index in (0, 1))
    bench = Bench(
        plan(
            inputs=(InputPlan("in", PortBinding(PortFormat.LINES), lanes, ordered=False),),
            peers={one.id: peer("there:1", 3) for one in lanes},
        )
    )
    bench.post(Attached())
    for one in lanes:
        bench.post(DialAccepted(one.id, 1, 3, 0))
    bench.post(DialBlock(lanes[1].id, 1, data([b"late replica first"])))
    assert bench.only(WritePort).parts == (b"late replica first\n",)
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(lanes[0].id, 1, data([b"then the other"])))
    assert bench.only(WritePort).parts == (b"then the other\n",)
    for one in lanes:
        bench.post(DialEnded(one.id, 1, 1))
    bench.post(PortWritten("in", output=False))
    bench.only(ShutPort)


# ---- as a replacement -------------------------------------------------------------------------------


def middle(*, replacement: bool, block_count: int = 1) -> AttemptPlan:
    return plan(
        inputs=(InputPlan("in", PortBinding(), (in_lane(),), block_count),),
        outputs=(OutputPlan("out", PortBinding(), (out_lane(), out_lane("a.out/c.in"))),),
        resume=True,
        replacement=replacement,
        peers={IN: peer("there:1", 3), OUT: peer("", 1), "a.out/c.in": peer("", 1)},
    )


def test_a_resuming_replacement_begins_where_the_last_of_its_consumers_is() -> None:
    bench = Bench(middle(replacement=True, block_count=3))
    bench.post(Attached())
    assert list(bench.last) == []
    bench.post(opened(1, want=40))
    assert list(bench.last) == [], "the other consumer has not said what it wants"
    bench.post(CallOpened(2, "a.out/c.in", 1, 7, 25, 1 << 20))
    assert bench.only(DialLane).want == 75
    bench.post(DialAccepted(IN, 1, 3, 75))
    bench.post(DialBlock(IN, 1, data([b"a"], 75)))
    starts = [effect for effect in bench.last if isinstance(effect, WritePort)]
    assert [int.from_bytes(one.parts[0][8:16], "little") for one in starts] == [25, 75]
    accepts = {one.call: one.first for one in bench.last if isinstance(one, AcceptCall)}
    assert accepts == {1: 40, 2: 25}


def test_what_came_before_the_port_began_is_counted_from_where_it_begins() -> None:
    lanes = tuple(
        out_lane(f"a.out/b-{replica}.in", replica=replica, replicas=2) for replica in (0, 1)
    )
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(PortFormat.LINES), lanes),)))
    bench.post(wrote(data([b"0"])))
    bench.post(Attached())
    bench.post(wrote(data([b"1"], 1)))
    bench.post(wrote(data([b"2"], 2)))
    got: list[list[bytes]] = []
    for call, lane in enumerate(lanes, 1):
        bench.post(CallOpened(call, lane.id, 1, 7, 0, 1 << 20))
        got.append(unpack(bench.only(SendBlock).block))
    assert got == [[b"0", b"2"], [b"1"]]


def test_what_a_consumer_has_is_not_let_go_of_before_it_says_so() -> None:
    bench = Bench(middle(replacement=True))
    bench.post(Attached())
    for call, lane in enumerate((OUT, "a.out/c.in"), 1):
        bench.post(CallOpened(call, lane, 1, 7, 98, 1 << 20, released=40))
    assert bench.only(DialLane).want == 98
    bench.post(DialAccepted(IN, 1, 3, 98))
    bench.post(DialBlock(IN, 1, data([b"a"], 98)))
    [told] = bench.machine.tick(1.0)
    assert isinstance(told, Acknowledge)
    assert told.released == 40, "what it stands for is kept further up"
    # It dies, and its replacement does not know what it had: records 40 to 97 are not here.
    bench.post(CallOpened(3, OUT, 2, 7, WANT_KEPT, 1 << 20))
    assert bench.failure().code is ReasonCode.REWIND


@pytest.mark.parametrize("when", ["before it begins", "after"])
def test_what_a_consumer_had_is_not_forgotten_when_it_dies(when: str) -> None:
    """Else its replacement would get all from where this attempt begins, with a gap before it."""
    inputs = tuple(
        replace(
            in_lane(f"z-{number}.out/a.in", replica=number, replicas=2), peer=peer("there:1", 3)
        )
        for number in range(2)
    )
    one = middle(replacement=True)
    bench = Bench(replace(one, inputs=(replace(one.inputs[0], lanes=inputs),)))
    bench.post(Attached())
    for call, lane in enumerate((OUT, "a.out/c.in"), 1):
        bench.post(CallOpened(call, lane, 1, 7, 98, 1 << 20, released=40))
    bench.post(CallClosed(1, OUT))
    replacement = CallOpened(3, OUT, 2, 7, WANT_KEPT, 1 << 20)
    if when == "before it begins":
        bench.post(replacement)
    for each in inputs:
        bench.post(DialAccepted(each.id, 1, 3, 0))
        bench.post(DialBlock(each.id, 1, data([b"a"] * 49)))
    if when == "after":
        bench.post(replacement)
    assert bench.failure().code is ReasonCode.REWIND


def test_a_consumer_that_does_not_know_gets_all_that_is_kept() -> None:
    bench = Bench(middle(replacement=True))
    bench.post(Attached())
    bench.post(opened(1, want=98))
    bench.post(CallOpened(2, "a.out/c.in", 1, 7, WANT_KEPT, 1 << 20))
    assert bench.only(DialLane).want == WANT_KEPT, "98 may be past what the other one needs"


def test_a_done_consumer_is_not_waited_for() -> None:
    bench = Bench(middle(replacement=True))
    bench.post(Attached())
    bench.post(opened(1, want=40))
    bench.move({"a.out/c.in": peer("", 1, done=True)})
    assert bench.only(DialLane).want == 40


def test_a_resuming_job_releases_a_round_once_all_its_consumers_have() -> None:
    bench = Bench(middle(replacement=False))
    bench.post(Attached())
    dial = bench.only(DialLane)
    assert dial.want == 0
    bench.post(DialAccepted(IN, 1, 3, 0))
    bench.post(PortWritten("in", output=False))
    bench.post(opened(1))
    bench.post(CallOpened(2, "a.out/c.in", 1, 7, 0, 1 << 20))
    bench.post(DialBlock(IN, 1, data([b"a", b"b"])))
    bench.post(PortWritten("in", output=False))
    bench.post(wrote(data([b"A", b"B"])))
    bench.post(CallAcknowledged(1, OUT, 2, 2, 10 + HEADER_BYTES))
    [ack] = bench.machine.tick(1.0)
    assert isinstance(ack, Acknowledge)
    assert (ack.consumed, ack.released) == (2, 0)
    bench.post(CallAcknowledged(2, "a.out/c.in", 1, 1, 10 + HEADER_BYTES))
    [ack] = bench.machine.tick(2.0)
    assert isinstance(ack, Acknowledge)
    assert ack.released == 1


def test_a_resuming_sink_goes_on_with_what_is_kept() -> None:
    bench = Bench(
        plan(
            inputs=(InputPlan("in", PortBinding(), (in_lane(),)),),
            resume=True,
            replacement=True,
            peers={IN: peer("there:1", 3)},
        )
    )
    bench.post(Attached())
    assert bench.only(DialLane).want == WANT_KEPT
    bench.post(DialAccepted(IN, 1, 3, 17))
    start = bench.only(WritePort).parts[0]
    assert int.from_bytes(start[8:16], "little") == 17
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(IN, 1, data([b"a"], 17)))
    bench.post(PortWritten("in", output=False))
    bench.post(wrote(Block(Kind.ACK, 18), "in", output=False))
    [ack] = bench.machine.tick(1.0)
    assert isinstance(ack, Acknowledge)
    assert ack.released == 18


def test_a_restarting_replacement_sends_from_the_beginning_and_skips_what_consumers_have() -> None:
    bench = Bench(plan(outputs=source().outputs, replacement=True), StreamLimits(block_bytes=64))
    bench.post(Attached())
    bench.post(opened(want=3))
    assert bench.only(AcceptCall).first == 3
    for number in range(3):
        bench.post(wrote(data([b"%030d" % number], number)))
        assert bench.none(SendBlock)
    bench.post(wrote(data([b"%030d" % 3], 3)))
    sent = bench.only(SendBlock)
    assert int.from_bytes(sent.header[8:16], "little") == 3


def test_a_repeated_run_goes_on_where_its_consumer_released_everything_before() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened(want=2))
    bench.post(wrote(data([b"a", b"b"])))
    assert bench.none(SendBlock)
    bench.post(CallAcknowledged(1, OUT, 2, 2, 0))
    bench.post(wrote(data([b"c"], 2)))
    assert bench.only(SendBlock).retained.first == 2
    assert bench.machine.counters(0)[0].retained_bytes == 5


def test_what_comes_after_the_end_of_an_attempt_is_off_the_table() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(Detached())
    with pytest.raises(ValueError, match="cannot go from gone to gone"):
        bench.post(Detached())


@pytest.mark.parametrize("total", [10, 11, 12])
def test_a_last_round_that_was_short_does_not_look_like_a_loss(total: int) -> None:
    bench = Bench(middle(replacement=True, block_count=3))
    bench.post(Attached())
    bench.post(opened(1, want=4))
    bench.post(CallOpened(2, "a.out/c.in", 1, 7, 4, 1 << 20))
    assert bench.only(DialLane).want == 12
    bench.post(DialAccepted(IN, 1, 3, 12))
    assert bench.none(WritePort), "whether round 3 was a whole one is not known yet"
    bench.post(DialEnded(IN, 1, total))
    assert bench.machine.failure is None
    firsts = {
        one.port: int.from_bytes(one.parts[0][8:16], "little")
        for one in bench.last
        if isinstance(one, WritePort)
    }
    assert firsts == {"out": 4, "in": 12}, "a job begins with a whole round"
    bench.post(PortWritten("in", output=False))
    assert bench.only(WritePort).parts[0] == encode(Block(Kind.END, 12))
    bench.post(wrote(Block(Kind.END, 4)))
    assert {one.total for one in bench.last if isinstance(one, SendEnd)} == {4}


def test_a_whole_round_that_is_missing_is_a_loss() -> None:
    bench = Bench(middle(replacement=True, block_count=3))
    bench.post(Attached())
    bench.post(opened(1, want=4))
    bench.post(CallOpened(2, "a.out/c.in", 1, 7, 4, 1 << 20))
    bench.post(DialAccepted(IN, 1, 3, 12))
    bench.post(DialEnded(IN, 1, 9))
    assert "ended after 9 records" in bench.failure().message


def test_records_go_where_their_key_leads_and_count_as_taken_once_all_replicas_have_them() -> None:
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(), (key_lane(0), key_lane(1))),)))
    bench.post(Attached())
    # CRC-32 of a, b and c is 0xe8b7be43, 0x71beeff9 and 0x06b9df6f: all odd; of d it is even.
    bench.post(PortBlock("out", True, data([b"a", b"d", b"b"])))
    bench.post(PortBlock("out", True, data([b"d", b"c"], 3)))
    sent: dict[int, list[bytes]] = {}
    for call in (0, 1):
        bench.post(CallOpened(call, key_lane(call).id, 1, 7, 0, 1 << 20))
        block = bench.only(SendBlock)
        sent[call] = unpack(decode(block.header + block.body))
    assert sent == {0: [b"d", b"d"], 1: [b"a", b"b", b"c"]}
    for call in (0, 1):
        bench.post(CallReady(call, key_lane(call).id))
    assert bench.machine.counters(0.0)[0].acknowledged == 0
    bench.post(CallAcknowledged(1, key_lane(1).id, 3, 0, 24 + 15))
    assert bench.machine.counters(0.0)[0].acknowledged == 3
    bench.post(CallAcknowledged(0, key_lane(0).id, 2, 0, 24 + 10))
    assert bench.machine.counters(0.0)[0].acknowledged == 5


def test_a_replacement_that_sends_by_key_begins_anew_whatever_it_asked_for() -> None:
    lanes = (key_lane(0), key_lane(1))
    outputs = (OutputPlan("out", PortBinding(), lanes),)
    bench = Bench(plan(outputs=outputs, resume=True, replacement=True))
    bench.post(Attached())
    assert bench.machine.stage is Stage.FLOWING
    start = bench.only(WritePort)
    assert json.loads(bytes(start.parts[0][HEADER_BYTES:]))["recovery"] == "restart"


def test_headers_without_sense_end_the_attempt_where_the_key_is_looked_for() -> None:
    record = b"\x02\x00{,x"
    body = pack([b"x", record], [1, len(record) | HEADED])
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(), (key_lane(0), key_lane(1))),)))
    bench.post(Attached())
    bench.post(PortBlock("out", True, Block(Kind.DATA, 0, 2, body)))
    assert bench.failure().code is ReasonCode.STREAM
    assert "port out at record 0: the headers of record 1 are no JSON" in bench.failure().message
    elsewhere = Bench(source())
    elsewhere.post(Attached())
    elsewhere.post(PortBlock("out", True, Block(Kind.DATA, 0, 2, body)))
    assert elsewhere.machine.failure is None
