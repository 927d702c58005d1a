"""Copies of results for programs of before: which, when they are done, and what waits for them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

from control.core.rows import OutboxKind, OutboxRow
from control.leader.result_copies import ResultCopies
from services.archive.copying import copies
from services.archive.manifest import manifest_text
from shoal.compat import Compat
from shoal.model import Artifact
from shoal.names import AttemptRef
from tests.kit.until import until
from tests.simulation.mesh.archive import MemoryArchive
from tests.unit.control.desk import Desk
from tests.unit.control.world import single

WHEN = datetime(2026, 11, 30, tzinfo=UTC)
REF = AttemptRef("default", "p", "a", 1, 1)
DATA = {"results/a.txt": b"a", "Results/plots/b.png": b"b", "model.h5": b"m", "stdout": b"said"}


def artifacts() -> tuple[Artifact, ...]:
    return tuple(Artifact(path, len(data), "0" * 64, f"k/{path}") for path, data in DATA.items())


def row(sequence: int, key: str = "m") -> OutboxRow:
    data = json.dumps({"prefix": "ada/Classification/task7/Results"})
    subject = "pipelines/p/jobs/a"
    return OutboxRow(
        OutboxKind.COPIES, "default", subject, "i", WHEN, data, key=key, sequence=sequence
    )


class Marks:
    def __init__(self) -> None:
        self.marked: list[int] = []

    async def mark_published(self, sequences: list[int]) -> None:
        self.marked += sequences


@asynccontextmanager
async def copying(archive: MemoryArchive) -> AsyncIterator[tuple[ResultCopies, Marks]]:
    marks = Marks()
    made = ResultCopies(cast("Any", marks), archive, archive, chance=lambda: 0.0, done=lambda: None)
    running = asyncio.create_task(made.run())
    try:
        yield made, marks
    finally:
        running.cancel()


def stored() -> MemoryArchive:
    archive = MemoryArchive(Random(1))
    for path, data in DATA.items():
        archive.objects[f"k/{path}"] = data
    archive.objects["m"] = manifest_text(REF, artifacts(), WHEN).encode()
    return archive


def test_results_lose_their_folder_and_logs_are_left_out() -> None:
    prefix = Compat("ada", "Classification", "task7").results_prefix
    assert {to: one.path for to, one in copies(artifacts(), prefix).items()} == {
        "ada/Classification/task7/Results/a.txt": "results/a.txt",
        "ada/Classification/task7/Results/plots/b.png": "Results/plots/b.png",
        "ada/Classification/task7/Results/model.h5": "model.h5",
    }


async def test_copies_wait_for_the_archive() -> None:
    archive = stored()
    archive.away = True
    async with copying(archive) as (made, marks):
        await made.add(row(5))
        await made.add(row(5))  # read again after the store was away
        archive.away = False
        await until(lambda: marks.marked == [5], 60, "the copies")
    assert archive.objects["ada/Classification/task7/Results/plots/b.png"] == b"b"
    assert len([key for key in archive.objects if key.startswith("ada/")]) == 3


async def test_copies_hold_up_the_events_of_their_own_pipeline_alone() -> None:
    """A bucket for copies that is not there would else silence the cluster."""
    archive = stored()
    archive.away = True
    async with copying(archive) as (made, _):
        await made.add(row(5))
        assert made.held("default", "pipelines/p", 6)
        await until(
            lambda: "are copied: " in made.held("default", "pipelines/p", 6), 60, "the reason"
        )
        for subject in ("pipelines/p", "pipelines/p/jobs/a", "pipelines/p/jobs/b"):
            assert "pipelines/p/jobs/a are copied: " in made.held("default", subject, 6), subject
        assert not made.held("default", "pipelines/p/jobs/a", 4), "what was told before the copies"
        assert not made.held("other", "pipelines/p", 6)
        assert not made.held("default", "pipelines/p2", 6)
        assert not made.held("", "nodes/p", 6)
        archive.away = False
        await until(lambda: not made.held("default", "pipelines/p", 6), 60, "the copies")


async def test_what_cannot_be_copied_holds_nothing_up() -> None:
    archive = stored()
    del archive.objects["k/results/a.txt"]
    async with copying(archive) as (made, marks):
        await made.add(row(1, "no such manifest"))
        await made.add(row(2))
        await until(lambda: marks.marked == [1, 2], 60, "the copies")
    assert "ada/Classification/task7/Results/model.h5" in archive.objects
    assert "ada/Classification/task7/Results/a.txt" not in archive.objects


def test_copies_are_recorded_between_the_manifest_and_done() -> None:
    desk = Desk()
    desk.dial_all("n1")
    compat = Compat("ada", "Classification", "task7", updates_topic=True, legacy_results=True)
    desk.succeed(desk.submit(replace(single(), compat=compat)), "main")
    rows = {row.kind: row for row in desk.events()}
    asked, manifest = rows[OutboxKind.COPIES], rows[OutboxKind.MANIFEST]
    done = rows[OutboxKind.KEPT_MESSAGE]
    assert json.loads(done.data)["status"] == "Done"
    assert manifest.sequence < asked.sequence < done.sequence
    assert asked.key == manifest.key
    assert json.loads(asked.data) == {"prefix": "ada/Classification/task7/Results"}


def test_nothing_is_copied_unasked() -> None:
    desk = Desk()
    desk.dial_all("n1")
    desk.succeed(desk.submit(single()), "main")
    assert OutboxKind.COPIES not in {row.kind for row in desk.events()}
