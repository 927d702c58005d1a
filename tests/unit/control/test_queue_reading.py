"""What a controller does while it reads a queue that is longer than a page."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.core.errors import ClosingError, StoreFailedError
from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store import statements
from control.store.sqlite import SqliteStore
from shoal.names import JobRef, PipelineRef
from tests.kit.until import turns, until
from tests.unit.control.desk import Desk
from tests.unit.control.test_plane import BreakableStore, submit
from tests.unit.control.world import Clock, hello, numbered_ids, running_plane, single

PAGED = PlaneConfig(queue_page=2, store_retry_seconds=0.001)


async def queue(path: Path) -> list[PipelineRef]:
    """Record pipelines that wait, on five pages."""
    async with running_plane(path) as plane:
        return [await submit(plane, single(f"p{number}")) for number in range(9)]


def plane_of(store: BreakableStore) -> ControlPlane:
    clock = Clock()
    return ControlPlane(store=store, config=PAGED, clock=clock, wall=clock.wall, ids=numbered_ids())


async def asked(plane: ControlPlane, ref: PipelineRef) -> asyncio.Task[object]:
    """A call about a pipeline that was not read yet, which waits."""
    asking = asyncio.ensure_future(explained(plane, ref))
    await turns(3)
    assert not asking.done()
    return asking


async def explained(plane: ControlPlane, ref: PipelineRef) -> object:
    """Ask why a job waits."""
    return await plane.explain(JobRef(ref.namespace, ref.pipeline, "main"))


async def test_who_waits_for_the_queue_is_let_go_when_the_store_fails_behind_its_first_page(
    tmp_path: Path,
) -> None:
    refs = await queue(tmp_path / "control.db")
    async with SqliteStore(tmp_path / "control.db") as sqlite:
        store = BreakableStore(sqlite)
        plane = plane_of(store)
        async with plane, asyncio.TaskGroup() as tasks:
            asking = await asked(plane, refs[8])
            store.broken = True
            driving = tasks.create_task(plane.run())
            # Not after as long as a caller waits for the queue at most.
            async with asyncio.timeout(10):
                with pytest.raises(StoreFailedError, match="disk is full"):
                    await asking
            store.broken = False
            await until(lambda: plane.leader.machine is not None, 10, "the machine built again")
            assert await explained(plane, refs[8]) == ()
            driving.cancel()


async def test_who_waits_for_the_queue_is_let_go_when_the_controller_ends(tmp_path: Path) -> None:
    refs = await queue(tmp_path / "control.db")
    async with SqliteStore(tmp_path / "control.db") as sqlite:
        plane = plane_of(BreakableStore(sqlite))
        async with plane:
            asking = await asked(plane, refs[8])
            plane.leader.close()
            async with asyncio.timeout(10):
                with pytest.raises(ClosingError, match="shutting down"):
                    await asking


async def test_failures_of_the_store_count_until_all_of_the_queue_is_read(tmp_path: Path) -> None:
    """A first page that can be read is no sign that the next can: the pauses go on growing until then."""
    await queue(tmp_path / "control.db")

    def failing() -> None:
        counted.append(leader._store_failures)
        if pages:
            pages.pop()
            raise StoreFailedError("store could not read: the disk is bad")

    pages = list(range(4))
    async with SqliteStore(tmp_path / "control.db") as sqlite:
        plane = plane_of(BreakableStore(sqlite, failing))
        leader = plane.leader
        counted: list[int] = []

        def all_read() -> bool:
            return not pages and leader.machine is not None and not leader._store_failures

        async with plane, asyncio.TaskGroup() as tasks:
            driving = tasks.create_task(plane.run())
            await until(all_read, 10, "all of the queue being read")
            driving.cancel()
        # Each first page was read, and forgot none of the failures before it.
        assert max(counted) == 4
        assert not leader._store_failures


def test_a_page_of_the_queue_does_not_plan_everything_anew() -> None:
    """Only what enters is looked at: what waited before cannot have found room by it."""
    desk = Desk()
    desk.dial(hello("n1"))
    desk.drain("n1")
    for number in range(3):
        desk.submit(single(f"p{number}"))
    desk.start()
    desk.dial(hello("n1"))
    desk.pass_time(1.0)  # all that waits was looked at
    situation = desk.machine._situation
    assert (situation.room_grew, dict(situation.fresh)) == (False, {})
    waited = len(situation.backlog)
    assert waited == 3
    more = Desk()
    for number in range(2):
        more.submit(single(f"q{number}"))
    page = statements.queued(more.connection, 0, 10)
    assert len(page) == 2
    desk.machine.line_up(page)
    assert not situation.room_grew, "a page makes no room"
    assert {ref.pipeline for ref in situation.fresh} == {one.ref.pipeline for one in page}
