"""X1 and X4: an output is closed to its job once nobody will get what it may still send."""

from __future__ import annotations

from dataclasses import replace

from services.streams.block import Block, Kind, unpack
from services.streams.effects import ClosePort, PausePort, ReportDrained, SendBlock, SendEnd
from services.streams.events import Attached, CallReady, Concluded, LanesChanged, PortClosed
from services.streams.machine import Stage
from services.streams.plan import AttemptPlan, OutputPlan
from shoal.session.lane import WANT_NOTHING, LanePeer
from shoal.spec import PortBinding, PortFormat
from tests.unit.streams.test_machine import (
    OUT,
    Bench,
    data,
    opened,
    out_lane,
    peer,
    plan,
    source,
    wrote,
)

OTHER = "a.more/c.in"


def ends(at: int) -> LanesChanged:
    """The port ends after so many records."""
    return LanesChanged((replace(out_lane(), end=at),))


def done(*lanes: str) -> dict[str, LanePeer]:
    """The consumers at these lanes have committed."""
    return {lane: peer("", 1, done=True) for lane in lanes}


def two() -> AttemptPlan:
    """A job with two outputs, each with a reader of its own."""
    lane = replace(out_lane(OTHER), port="more", peer_job="c")
    binding = PortBinding(PortFormat.LINES)
    return plan(
        outputs=(OutputPlan("out", binding, (out_lane(),)), OutputPlan("more", binding, (lane,)))
    )


def closed(bench: Bench) -> set[str]:
    return {effect.port for effect in bench.last if isinstance(effect, ClosePort)}


def test_x1_a_port_ends_at_its_record_whatever_the_job_goes_on_to_send() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(data([b"0", b"1"])))
    bench.post(CallReady(1, OUT))
    bench.post(ends(3))
    assert not bench.machine.closed, "one record is missing"
    bench.post(wrote(data([b"2", b"3"], 2)))
    assert unpack(bench.only(SendBlock).block) == [b"2"]
    assert closed(bench) == {"out"}
    bench.post(CallReady(1, OUT))
    assert bench.only(SendEnd).total == 3
    for event in (
        wrote(data([b"4"], 9)),
        wrote(Block(Kind.END, 77)),
        PortClosed("out", True, 9, "cut"),
    ):
        assert not bench.post(event)
    bench.post(Concluded(succeeded=True))
    bench.move(done(OUT))
    bench.only(ReportDrained)


def test_x1_what_came_while_the_port_stood_still_is_behind_its_end() -> None:
    lane = replace(out_lane(), hold=9)
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(), (lane,)),)))
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(data([b"0"])))
    bench.post(ends(0))
    assert bench.only(SendEnd).total == 0
    assert closed(bench) == {"out"}
    assert bench.none(PausePort), "what is on its way is read and dropped"


def test_x1_a_replacement_repeats_until_it_has_sent_what_its_consumer_has() -> None:
    bench = Bench(replace(source(), replacement=True))

    def repeating() -> bool:
        return bench.machine.counters(0.0)[0].repeating

    bench.post(Attached())
    assert repeating(), "nobody has said yet what he has"
    bench.post(opened(want=2))
    assert repeating()
    bench.post(wrote(data([b"0"])))
    assert repeating()
    bench.post(wrote(data([b"1"], 1)))
    assert not repeating()


def test_x1_a_replacement_repeats_what_a_consumer_had_that_wants_nothing_more() -> None:
    """It has not committed yet: if it does, what it had is what it commits."""
    bench = Bench(replace(source(), replacement=True))
    bench.post(Attached())
    bench.post(replace(opened(want=WANT_NOTHING), had=2))
    bench.post(wrote(data([b"0"])))
    assert bench.machine.counters(0.0)[0].repeating
    bench.post(wrote(data([b"1"], 1)))
    assert not bench.machine.counters(0.0)[0].repeating


def test_x4_an_output_is_closed_once_its_last_reader_has_committed() -> None:
    bench = Bench(source(PortFormat.LINES))
    bench.post(Attached())
    bench.post(opened())
    bench.post(wrote(data([b"0"])))
    assert not closed(bench)
    bench.move(done(OUT))
    assert closed(bench) == {"out"}
    assert bench.machine.closed
    bench.post(Concluded(succeeded=True))
    bench.only(ReportDrained)
    assert bench.machine.stage is Stage.CONCLUDED


def test_x4_outputs_are_closed_together() -> None:
    bench = Bench(two())
    bench.post(Attached())
    bench.move(done(OUT))
    assert not closed(bench), "the program would die of it, and the other reader gets the rest"
    bench.move(done(OTHER))
    assert closed(bench) == {"out", "more"}


def test_x4_an_output_that_nobody_ever_read_is_not_closed() -> None:
    bench = Bench(plan(outputs=(OutputPlan("out", PortBinding(PortFormat.LINES), ()),)))
    bench.post(Attached())
    bench.post(wrote(data([b"0"])))
    assert not closed(bench)
