"""Two controllers on one store: the older one records nothing more, and ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control.core.answers import Submission, SubmitResult
from control.core.errors import ClosingError, TermOverError
from control.core.pipeline_query import PipelineQuery
from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from tests.unit.control.world import numbered_ids, single


def _plane(store: SqliteStore) -> ControlPlane:
    return ControlPlane(
        store=store,
        config=PlaneConfig(),
        clock=lambda: 0.0,
        wall=lambda: datetime.now(UTC),
        ids=numbered_ids(),
    )


def _open_the_lock(path: Path) -> None:
    """Let another store open the file, as one on another host could that shares a database."""
    path.with_name(f"{path.name}.lock").unlink()


async def test_the_older_controller_records_nothing_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "controller.db"
    async with SqliteStore(path) as store, _plane(store) as older:
        running = asyncio.create_task(older.run())
        (before,) = await older.submit([Submission("default", "before", single())])
        _open_the_lock(path)
        async with SqliteStore(path) as later_store, _plane(later_store) as later:
            later_running = asyncio.create_task(later.run())
            with pytest.raises(ClosingError):
                await older.submit([Submission("default", "after", single())])
            with pytest.raises(TermOverError, match=r"in term 2, so term 1 of this one is over"):
                await running
            assert isinstance(before, SubmitResult)
            assert [
                one.id for one in (await later.shown.pipelines(PipelineQuery("default"))).items
            ] == [before.view.id]
            (after,) = await later.submit([Submission("default", "after", single())])
            assert isinstance(after, SubmitResult)
            assert not after.repeated, "the older one recorded nothing of it"
            later_running.cancel()


async def test_nothing_of_an_older_term_is_written(tmp_path: Path) -> None:
    path = tmp_path / "controller.db"
    async with SqliteStore(path) as older:
        loaded = await older.load(lambda: "older", 100)
        _open_the_lock(path)
        async with SqliteStore(path) as later:
            await later.load(lambda: "later", 100)
            with pytest.raises(TermOverError):
                await older.commit([loaded.starts[-1]])
            with pytest.raises(TermOverError):
                await older.mark_published([1])
            with pytest.raises(TermOverError):
                await older.load(lambda: "again", 100)
            assert (await later.load(lambda: "later", 100)).starts[-1].term == 3
