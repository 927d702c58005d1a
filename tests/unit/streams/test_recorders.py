"""U6: a recorder of an output gets a copy of all that passes, however it is dealt out."""

from dataclasses import replace

import pytest

from services.streams.block import Block, Kind
from services.streams.effects import AcceptCall, SendBlock, SendEnd
from services.streams.events import Attached, CallOpened, CallReady, RecorderJoined, RecorderLeft
from services.streams.plan import OutputPlan
from shoal.session.lane import WANT_KEPT, Lane
from shoal.spec import Distribute, PortBinding
from tests.unit.streams.test_machine import Bench, data, out_lane, peer, plan, wrote

CALL = 9
RECORDER = Lane(
    "a.out/client.record-1",
    True,
    "out",
    peer_port="record",
    peer_job="client",
    distribute=Distribute.BROADCAST,
)


def _dealt_out(distribute: Distribute, replicas: int) -> Bench:
    lanes = tuple(
        replace(
            out_lane(f"a.out/b-{number}.in", replica=number, replicas=replicas),
            distribute=distribute,
        )
        for number in range(replicas)
    )
    placed = {lane.id: peer("there:1", 1) for lane in lanes}
    return Bench(plan(outputs=(OutputPlan("out", PortBinding(), lanes),), peers=placed))


def _join(bench: Bench) -> AcceptCall:
    bench.post(RecorderJoined(RECORDER))
    bench.post(CallOpened(CALL, RECORDER.id, 1, 7, WANT_KEPT, 1 << 20))
    return bench.only(AcceptCall)


def _taken(bench: Bench) -> tuple[int, bool]:
    """How many records the recorder is sent until nothing more comes, and whether the end is."""
    count = 0
    while True:
        sent = [one for one in bench.last if isinstance(one, SendBlock) and one.call == CALL]
        ended = any(isinstance(one, SendEnd) and one.call == CALL for one in bench.last)
        count += sum(one.block.count for one in sent)
        if ended or not sent:
            return count, ended
        bench.post(CallReady(CALL, RECORDER.id))


@pytest.mark.parametrize("distribute", [Distribute.ROUND_ROBIN, Distribute.KEY])
@pytest.mark.parametrize("replicas", [2, 3])
def test_u6_a_recorder_gets_all_that_passes_from_when_it_joins(
    distribute: Distribute, replicas: int
) -> None:
    bench = _dealt_out(distribute, replicas)
    bench.post(Attached())
    bench.post(wrote(data([b"a", b"b", b"c"])))
    for joined in range(2):  # the second time after it has left
        first = _join(bench).first
        assert first == 3 + 2 * joined
        bench.post(wrote(data([b"d", b"e"], first)))
        assert _taken(bench) == (2, False)
        bench.post(RecorderLeft(RECORDER.id))
    assert _join(bench).first == 7
    bench.post(wrote(Block(Kind.END, 7)))
    assert _taken(bench) == (0, True)
