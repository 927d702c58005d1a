"""Manifests leave the outbox for the archive, many together; what stood there before counts only if it is the same."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control.core.rows import OutboxKind, OutboxRow
from control.leader.publishing import ROWS_AT_ONCE, Publishing
from control.leader.recorded_objects import RecordedObjects
from control.store.sqlite import SqliteStore
from services.archive.directory_store import DirectoryStore
from services.archive.object_store import PutOutcome, SmallObject
from services.archive.signature import PathSigner
from tests.kit.until import until

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def row(sequence: int, kind: OutboxKind) -> OutboxRow:
    """One row; a manifest has a key, and what it says is its number."""
    manifest = kind is OutboxKind.MANIFEST
    return OutboxRow(
        kind=kind,
        namespace="default",
        subject=f"pipelines/p-{sequence}/jobs/job",
        id=f"default/pipelines/p-{sequence}/jobs/job/{kind}/1",
        time=NOW,
        type="" if manifest else "shoal.job.succeeded",
        data=f'{{"number": {sequence}}}',
        key=key(sequence) if manifest else "",
        sequence=sequence,
    )


def key(sequence: int) -> str:
    """Where the manifest with that number goes."""
    return f"default/pipelines/p-{sequence}/jobs/job/manifest.json"


def directory_store(folder: Path) -> DirectoryStore:
    """An archive in a folder."""
    return DirectoryStore(
        folder,
        signer=PathSigner("http://127.0.0.1:1", b"0123456789abcdef"),
        wall=time.time,
        new_id=lambda: secrets.token_hex(8),
    )


class Counted(DirectoryStore):
    """An archive in a folder that counts the objects of each put."""

    def __init__(self, folder: Path) -> None:
        signer = PathSigner("http://127.0.0.1:1", b"0123456789abcdef")
        super().__init__(folder, signer=signer, wall=time.time, new_id=lambda: secrets.token_hex(8))
        self.puts: list[int] = []

    async def put_many(
        self, objects: Sequence[SmallObject], *, if_absent: bool = False
    ) -> Sequence[PutOutcome]:
        """Count them, and store them."""
        self.puts.append(len(objects))
        return await super().put_many(objects, if_absent=if_absent)


@asynccontextmanager
async def publishing(store: SqliteStore, archive: DirectoryStore) -> AsyncIterator[RecordedObjects]:
    """Empty the outbox for as long as the block; without a broker, so that events stay."""
    objects = RecordedObjects()
    running = Publishing(
        store,
        archive,
        asyncio.Event(),
        objects,
        broker=None,
        client_id="test",
        clock=time.monotonic,
        wall=lambda: NOW,
        chance=random.random,
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(running.run())
        yield objects
        task.cancel()


async def waiting(store: SqliteStore) -> list[OutboxKind]:
    """The kinds of the rows that have not left."""
    return [one.kind for one in await store.outbox(10_000)]


async def test_all_manifests_are_stored_and_events_stay(tmp_path: Path) -> None:
    """Also those behind more events than are read at once, and those that come later."""
    count = ROWS_AT_ONCE + 10
    events = [row(n, OutboxKind.EVENT) for n in range(1, count)]
    manifests = [row(count + n, OutboxKind.MANIFEST) for n in range(200)]
    async with SqliteStore(tmp_path / "c.db") as store, directory_store(tmp_path / "a") as archive:
        await store.load(lambda: "id", 100)
        await store.commit([*events, *manifests])
        async with publishing(store, archive) as objects:
            await until(lambda: _is(archive, manifests[-1]), what="the last manifest")
            later = row(count + 200, OutboxKind.MANIFEST)
            await store.commit([later])
            objects.add([later], later.sequence)
            await until(lambda: _is(archive, later), what="a manifest that came later")
            await until(lambda: _left(store, len(events)), what="no manifest waits")
        assert set(await waiting(store)) == {OutboxKind.EVENT}
        for one in manifests:
            assert await archive.get(one.key) == one.data.encode()


async def test_manifests_of_a_busy_cluster_share_a_reading_and_a_put(tmp_path: Path) -> None:
    """Jobs that end one by one, a few at a time, as the leader commits them."""
    async with SqliteStore(tmp_path / "c.db") as store, Counted(tmp_path / "a") as archive:
        await store.load(lambda: "id", 100)
        async with publishing(store, archive) as objects:
            objects.begin(0)  # so that all is handed on, and nothing read
            for number in range(1, 201):
                one = row(number, OutboxKind.MANIFEST)
                await store.commit([one])
                objects.add([one], number)
            await until(lambda: _left(store, 0), what="no manifest waits")
        assert len(archive.puts) <= 100
        assert sum(archive.puts) == 200


async def test_what_stood_in_the_archive_gives_way_to_what_the_store_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(n, OutboxKind.MANIFEST) for n in range(1, 4)]
    async with SqliteStore(tmp_path / "c.db") as store, directory_store(tmp_path / "a") as archive:
        await store.load(lambda: "id", 100)
        await archive.put(key(1), rows[0].data.encode())  # ours, from before a crash
        await archive.put(key(2), b"another's")
        await store.commit(rows)
        async with publishing(store, archive):
            await until(lambda: _left(store, 0), what="no manifest waits")
        for one in rows:
            assert await archive.get(one.key) == one.data.encode()
    said = [one for one in caplog.records if "another manifest stood" in one.getMessage()]
    assert len(said) == 1


async def test_manifests_wait_for_an_archive_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(n, OutboxKind.MANIFEST) for n in range(1, 30)]
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    async with SqliteStore(tmp_path / "c.db") as store, directory_store(folder) as archive:
        await store.load(lambda: "id", 100)
        folder.rename(elsewhere)
        await store.commit(rows)
        async with publishing(store, archive):
            await until(lambda: "manifests wait" in caplog.text, what="a first try")
            assert len(await waiting(store)) == len(rows)
            assert not folder.exists()
            elsewhere.rename(folder)
            await until(lambda: _left(store, 0), 60, what="no manifest waits")
        assert [await archive.get(one.key) for one in rows] == [one.data.encode() for one in rows]


async def _is(archive: DirectoryStore, one: OutboxRow) -> bool:
    return await archive.head(one.key) is not None


async def _left(store: SqliteStore, count: int) -> bool:
    return len(await waiting(store)) == count
