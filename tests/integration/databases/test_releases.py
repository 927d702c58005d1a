"""The databases of each release, opened by this build: everything that was in them is there."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from control.core.hydration import records
from control.core.standing import Standing
from control.core.state import Cluster
from control.core.views import pipeline_view
from control.store import schema
from control.store.sqlite import SqliteStore
from edge_agent.journal import STEPS, Journal
from services.runtime.migration import backup_path
from shoal.client import Client
from shoal.names import PipelineRef
from shoal.view import PipelineSummary
from tests.kit.controller_process import ControllerProcess
from tests.kit.database_text import read_text, rows_at, rows_of
from tests.kit.described import described
from tests.kit.releases import releases

FOLDER = Path(__file__).parent
KEPT = sorted(one.name for one in FOLDER.iterdir() if (one / "said.json").exists())


def said(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / version / "said.json").read_text())
    return found


def opened(version: str, name: str, folder: Path) -> Path:
    """A database as the release left it, and a copy of it."""
    folder.mkdir(parents=True, exist_ok=True)
    read_text(FOLDER / version / f"{name}.sql", folder / f"{name}.db")
    read_text(FOLDER / version / f"{name}.sql", folder / "before.db")
    return folder / f"{name}.db"


def check_rows(path: Path) -> None:
    """Find every row of before; columns that a step has added are not asked for."""
    with closing(sqlite3.connect(path)) as connection:
        for table, columns, rows in rows_of(path.with_name("before.db")):
            if table not in {"room", "sqlite_sequence"}:
                assert rows_at(connection, table, columns) == rows, table


def check_backup(path: Path, steps: int) -> None:
    """Where a step was taken, the file of before lies beside it."""
    with closing(sqlite3.connect(path.with_name("before.db"))) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert backup_path(path, version).exists() == (version < steps)


def test_each_release_has_its_databases_here() -> None:
    """`python -m tests.lanes.upgrade.record` writes those of the newest."""
    assert [one.version for one in releases()] == KEPT


@pytest.mark.parametrize("version", KEPT)
async def test_a_store_has_every_row(version: str, tmp_path: Path) -> None:
    path = opened(version, "controller", tmp_path)
    async with SqliteStore(path):
        pass
    check_rows(path)
    check_backup(path, len(schema.STEPS))


@pytest.mark.parametrize("version", KEPT)
async def test_a_store_sums_up_what_was_recorded_before_there_were_summaries(
    version: str, tmp_path: Path
) -> None:
    async with SqliteStore(opened(version, "controller", tmp_path)) as store:
        loaded = await store.load(lambda: "id", 1_000)
        cluster = Cluster(loaded, 0)
        refs = list(loaded.standings)
        views = [pipeline_view(one) for one in records((await store.find(refs)).rows, cluster)]
        summaries = {one.id: one for one in await store.summaries(refs)}
        assert len(views) == len(summaries) == len(refs) > 1
        ended = [view for view in views if view.state.terminal]
        assert ended
        for view in ended:
            assert summaries[view.id] == PipelineSummary.of(view)
            ref = PipelineRef(view.namespace, view.id)
            assert loaded.standings[ref] == Standing.of(view)
        for view in views:
            assert summaries[view.id].spec_name == view.spec_name
            assert summaries[view.id].labels == view.labels


@pytest.mark.parametrize("version", KEPT)
async def test_a_controller_says_of_it_what_the_release_said(version: str, tmp_path: Path) -> None:
    opened(version, "controller", tmp_path / "state")
    # Longer than this takes: after the lease a job on a board that is away would begin again.
    process = ControllerProcess(tmp_path, "--lease-seconds", "600")
    async with process as controller, Client(controller.grpc) as client:
        now = await described(client)
    before = said(version)
    assert now["nodes"] == before["nodes"]
    assert now["pipelines"] == before["pipelines"]


@pytest.mark.parametrize("version", KEPT)
async def test_a_journal_has_every_attempt(version: str, tmp_path: Path) -> None:
    path = opened(version, "agent", tmp_path)
    async with Journal(path) as journal:
        found = {one.ref.name: one.phase.value for one in await journal.load()}
        facts = await journal.facts()
    assert found == said(version)["journal"]
    assert found
    assert facts["instance"]
    assert facts["followed"]
    check_rows(path)
    check_backup(path, len(STEPS))
