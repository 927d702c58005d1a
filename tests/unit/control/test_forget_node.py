"""A node that is gone can be forgotten, and one that is there cannot."""

from pathlib import Path

import pytest

from control.core import events
from control.core.errors import NodeNotGoneError, UnknownNodeError
from control.core.rows import NodeForgotten, NodeRow
from control.store.sqlite import SqliteStore
from shoal.model import Capacity, JobState, MemberState
from shoal.spec import Placement
from tests.unit.control.desk import Desk
from tests.unit.control.world import single

S = JobState


def forget(desk: Desk, node: str) -> object:
    return desk.post(lambda call: events.ForgetNode(call, node))


def refused(desk: Desk, node: str, *words: str) -> None:
    error = forget(desk, node)
    assert isinstance(error, NodeNotGoneError)
    assert [word for word in words if word not in str(error)] == []
    assert node in desk.machine.cluster.nodes


def test_one_that_is_there_is_refused_with_what_to_do() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2")
    refused(desk, "n1", "n1", "its agent has a session", "shoal drain n1")
    desk.hang_up("n1")
    refused(desk, "n1", "taken for gone in", " s")
    for state in (MemberState.ALIVE, MemberState.SUSPECT):
        desk.verdict("n1", state)
        refused(desk, "n1", f"gossip finds it {state.name.lower()}")
    error = forget(desk, "n3")
    assert isinstance(error, UnknownNodeError)
    desk.verdict("n1", MemberState.LEFT)
    assert forget(desk, "n1") is None
    assert set(desk.machine.cluster.nodes) == {"n2"}


def test_one_with_an_attempt_that_waits_for_it_is_refused_until_that_is_over() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single(placement=Placement.PINNED))
    desk.observe(ref, "main", S.RUNNING)
    desk.hang_up("n1")
    desk.pass_time(60.0)
    refused(desk, "n1", f"{ref.name}/jobs/main/attempts/1", f"shoal cancel {ref.pipeline}")


def test_one_that_is_silent_is_forgotten_with_its_record_and_comes_back_as_a_new_one() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2")
    desk.drain("n2")
    ref = desk.submit(single())
    lost = desk.current(ref, "main")
    desk.drain("n2", drained=False)
    desk.drain("n1")
    desk.hang_up("n1")
    desk.pass_time(30.0)
    assert desk.nodes(ref) == {"main": "n2"}
    assert forget(desk, "n1") is None
    desk.pass_time(60.0)  # whatever still had its name is looked at
    for _ in range(2):
        assert set(desk.machine.cluster.nodes) == {"n2"}
        desk.start()  # its lost attempt is in the store, and brings it back no more
    assert [verdict.node for verdict in desk.machine.explain(desk.job(ref, "main").ref)] == ["n2"]
    desk.dial_all("n1", "n2")
    assert not desk.machine.cluster.nodes["n1"].drained
    assert len(desk.report("n1", lost, S.SUCCEEDED)) == 1, "what it did before is fenced"


def test_an_assignment_that_was_never_taken_up_is_chased_no_more() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    assert desk.nodes(ref) == {"main": "n1"}
    desk.hang_up("n1")
    desk.verdict("n1", MemberState.DEAD)
    assert forget(desk, "n1") is None
    desk.pass_time(120.0)
    assert desk.states(ref) == {"main": "QUEUED"}


NEW, OLD = (NodeRow("n1", agent, Capacity(1)) for agent in ("new", "old"))
FORGOTTEN = NodeForgotten("n1")


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ((OLD, FORGOTTEN), ()),
        ((OLD, FORGOTTEN, NEW), (NEW,)),
        ((OLD, FORGOTTEN, NEW, FORGOTTEN), ()),
        ((FORGOTTEN, NEW, OLD), (OLD,)),
    ],
)
async def test_several_steps_of_one_transaction_count_in_their_order(
    rows: tuple[NodeRow | NodeForgotten, ...], left: tuple[NodeRow, ...], tmp_path: Path
) -> None:
    async with SqliteStore(tmp_path / "c.db") as store:
        await store.commit([OLD])
        await store.commit(rows)
        assert (await store.load(lambda: "id", 100)).nodes == left
