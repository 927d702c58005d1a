"""What an attempt does when a job beside it is scaled, step by step."""

from __future__ import annotations

from dataclasses import replace

from services.streams.block import Block, Kind, unpack
from services.streams.effects import PausePort, ReadPort, SendBlock, SendEnd, ShutPort, WritePort
from services.streams.events import (
    Attached,
    CallOpened,
    CallReady,
    DialAccepted,
    DialBlock,
    DialEnded,
    LanesChanged,
    PortWritten,
)
from services.streams.machine import Stage
from services.streams.plan import AttemptPlan, OutputPlan
from shoal.model import ReasonCode
from shoal.session.lane import WANT_KEPT, Lane, Stretch
from shoal.spec import PortBinding
from tests.unit.streams.test_machine import (
    IN,
    OUT,
    Bench,
    accepted,
    data,
    in_lane,
    out_lane,
    peer,
    plan,
    sink,
    wrote,
)

NEW = "a.out/b-1.in"
BESIDE = "a.out/c.in"


def held(*, replacement: bool = False) -> AttemptPlan:
    """A source that stands still for the third scale of its pipeline."""
    lane = replace(out_lane(), hold=3)
    return plan(outputs=(OutputPlan("out", PortBinding(), (lane,)),), replacement=replacement)


def cut(at: int, *others: Lane) -> LanesChanged:
    """Record `at` is the first of a new replica."""
    old = replace(out_lane(), stretch=Stretch(consumer_end=at))
    new = replace(out_lane(NEW), stretch=Stretch(consumer_begin=at))
    return LanesChanged((old, new, *others))


def dialled(call: int, lane: str, want: int = 0) -> CallOpened:
    return CallOpened(call, lane, 1, 7, want, 1 << 20)


def sent(bench: Bench) -> list[bytes]:
    block = bench.only(SendBlock).block
    return unpack(block)


def ended(bench: Bench) -> tuple[int, bool, bool]:
    """What is said at the end of a lane: total, cut, continued."""
    end = bench.only(SendEnd)
    return end.total, end.cut, end.continued


def counted(bench: Bench) -> tuple[int, int]:
    for hold in bench.machine.holds:
        return hold.number, hold.held_at
    return 0, 0


def test_a_port_that_stands_still_keeps_what_was_on_its_way() -> None:
    bench = Bench(held())
    bench.post(Attached())
    assert not bench.none(PausePort)
    bench.post(dialled(1, OUT))
    bench.post(wrote(data([b"0", b"1", b"2"])))
    assert bench.none(SendBlock), "nobody has said yet whose they are"
    assert counted(bench) == (3, 0)
    bench.post(cut(2))
    assert not bench.none(ReadPort)
    assert sent(bench) == [b"0", b"1"]
    bench.post(CallReady(1, OUT))
    assert ended(bench) == (2, True, False)
    bench.post(dialled(2, NEW))
    assert sent(bench) == [b"2"]
    assert counted(bench) == (0, 0)


def test_a_scale_that_is_given_up_changes_nothing() -> None:
    bench = Bench(held())
    bench.post(Attached())
    bench.post(dialled(1, OUT))
    bench.post(wrote(data([b"0", b"1"])))
    bench.post(LanesChanged((out_lane(),)))
    assert sent(bench) == [b"0", b"1"]


def test_a_replacement_reports_what_its_consumers_have() -> None:
    """Case F16: the attempt before may have sent more than this one so far."""
    bench = Bench(held(replacement=True))
    bench.post(Attached())
    assert counted(bench) == (0, 0), "the consumer has not dialled in"
    bench.post(dialled(1, OUT, want=9))
    assert counted(bench) == (3, 9)


def test_a_consumer_without_a_past_bounds_nothing() -> None:
    bench = Bench(held(replacement=True))
    bench.post(Attached())
    bench.post(dialled(1, OUT, want=WANT_KEPT))
    assert counted(bench) == (3, 0)


def test_a_replacement_repeats_what_an_earlier_generation_had() -> None:
    """The first one has committed all before record 2, and the second one has nothing yet."""
    old = replace(out_lane(), stretch=Stretch(consumer_end=2))
    new = replace(out_lane(NEW), stretch=Stretch(consumer_begin=2))
    output = OutputPlan("out", PortBinding(), (old, new))
    done = peer(epoch=1, done=True)
    bench = Bench(plan(outputs=(output,), peers={OUT: done}, replacement=True))
    bench.post(Attached())
    bench.post(dialled(1, NEW))
    bench.post(wrote(data([b"0"])))
    assert bench.machine.counters(0.0)[0].repeating
    bench.post(wrote(data([b"1"], 1)))
    assert not bench.machine.counters(0.0)[0].repeating


def test_who_reads_everything_is_not_cut() -> None:
    """Both read the same kept blocks: none of them has records from before and after the cut."""
    beside = out_lane(BESIDE)
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(), (out_lane(), beside)),)))
    bench.post(Attached())
    bench.post(cut(3, beside))
    bench.post(wrote(data([b"0", b"1"])))
    bench.post(wrote(data([b"2", b"3", b"4"], 2)))
    bench.post(dialled(1, OUT))
    assert sent(bench) == [b"0", b"1", b"2"]
    bench.post(CallReady(1, OUT))
    assert ended(bench) == (3, True, False)
    bench.post(dialled(2, BESIDE, want=3))
    assert sent(bench) == [b"3", b"4"]
    bench.post(dialled(3, NEW))
    assert sent(bench) == [b"3", b"4"]


def test_a_cut_before_what_was_sent_ends_the_attempt() -> None:
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(), (out_lane(),)),)))
    bench.post(Attached())
    bench.post(wrote(data([b"0", b"1", b"2"])))
    bench.post(cut(2))
    assert bench.machine.stage is Stage.FAILED
    assert bench.failure().code is ReasonCode.STREAM
    assert "was cut at record 2, 3 came before" in bench.failure().message


def test_an_input_does_not_end_before_the_next_generation_is_known() -> None:
    """The end of a lane may be quicker than the news of what comes after it."""
    bench = Bench(sink())
    bench.post(Attached())
    accepted(bench)
    bench.post(PortWritten("in", output=False))
    bench.post(DialBlock(IN, 1, data([b"0", b"1"])))
    bench.post(PortWritten("in", output=False))
    bench.post(DialEnded(IN, 1, 2, continued=True))
    assert bench.none(ShutPort)
    next_lane = replace(in_lane("z-1.out/a.in"), stretch=Stretch(1, producer_begin=2))
    bench.post(LanesChanged((in_lane(), replace(next_lane, peer=peer("there:2", 1)))))
    bench.post(DialEnded(next_lane.id, 1, 0))
    assert not bench.none(ShutPort)


def test_outputs_of_a_replica_that_was_cut_off_are_continued() -> None:
    outputs = (OutputPlan("out", PortBinding(), (out_lane(),)),)
    bench = Bench(replace(sink(), outputs=outputs))
    bench.post(Attached())
    accepted(bench)
    bench.post(DialEnded(IN, 1, 0, cut=True))
    bench.post(dialled(1, OUT))
    bench.post(wrote(Block(Kind.END, 0)))
    assert ended(bench) == (0, False, True)


def test_a_record_of_the_next_generation_is_not_taken_for_the_last_of_the_one_before() -> None:
    first = replace(in_lane(), peer=peer("there:1", 3))
    left, right = (
        replace(
            in_lane(f"z-{number}.out/a.in", replica=number - 1, replicas=2),
            stretch=Stretch(1, producer_begin=1),
            peer=peer("there:2", 3),
        )
        for number in (1, 2)
    )
    [port] = sink().inputs
    bench = Bench(plan(inputs=(replace(port, lanes=(first, left, right)),)))
    bench.post(Attached())
    for lane in (first, left, right):
        bench.post(DialAccepted(lane.id, 1, 3, 0))
    bench.post(DialBlock(IN, 1, data([b"0"])))
    bench.post(DialEnded(IN, 1, 1, continued=True))
    bench.post(DialBlock(left.id, 1, data([b"1", b"3"])))
    bench.post(PortWritten("in", output=False))  # START
    written = b"".join(bench.only(WritePort).parts)
    assert [written[24 + 4 + at] for at in (0, 29)] == [ord("0"), ord("1")]
