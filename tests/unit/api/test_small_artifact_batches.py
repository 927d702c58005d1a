"""What many sessions bring at a time is stored together, and none suffers for another."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from control.front.sessions.small_artifacts import (
    AWAY,
    OBJECTS_TOGETHER,
    TOGETHER_BYTES,
    SmallArtifacts,
)
from services.archive.directory_store import DirectoryStore
from services.archive.key import InvalidKeyError
from services.archive.object_store import ArchiveUnavailableError, PutOutcome, SmallObject
from services.archive.signature import PathSigner
from tests.kit.until import turns


class GatedStore(DirectoryStore):
    """A folder that notes its batches, and holds each up while its gate is shut."""

    def __init__(self, folder: Path) -> None:
        numbers = iter(range(1_000_000))
        super().__init__(
            folder,
            signer=PathSigner("http://127.0.0.1:1", b"0123456789abcdef"),
            wall=time.time,
            new_id=lambda: str(next(numbers)),
        )
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def put_many(
        self, objects: Sequence[SmallObject], *, if_absent: bool = False
    ) -> Sequence[PutOutcome]:
        """See `DirectoryStore`."""
        self.batches.append([one.key for one in objects])
        await self.gate.wait()
        return await super().put_many(objects, if_absent=if_absent)


def named(*keys: str, data: bytes = b"x") -> list[SmallObject]:
    """Objects with these keys."""
    return [SmallObject(key, data) for key in keys]


async def test_what_waits_for_a_batch_becomes_the_next_one(tmp_path: Path) -> None:
    async with GatedStore(tmp_path) as store, asyncio.TaskGroup() as tasks:
        small = SmallArtifacts(store, lambda: 0.0)
        store.gate.clear()
        for n in range(5):
            tasks.create_task(small.store(named(f"a/{n}", f"b/{n}")))
        await turns(10)
        assert store.batches == [["a/0", "b/0"]]
        store.gate.set()
    assert len(store.batches) == 2
    assert store.batches[1] == [f"{one}/{n}" for n in range(1, 5) for one in "ab"]


async def test_a_batch_has_an_end(tmp_path: Path) -> None:
    large = bytes(TOGETHER_BYTES // 2)
    async with GatedStore(tmp_path) as store:
        small = SmallArtifacts(store, lambda: 0.0)
        store.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            for n in range(6):
                tasks.create_task(small.store(named(f"a/{n}", data=large)))
            await turns(10)
            store.gate.set()
        assert [len(batch) for batch in store.batches] == [1, 2, 2, 1]
        assert [await store.get(f"a/{n}") == large for n in range(6)] == [True] * 6


async def test_a_session_that_ends_takes_no_other_with_it(tmp_path: Path) -> None:
    """Neither the one whose turn it was, nor one that waited."""
    async with GatedStore(tmp_path) as store:
        small = SmallArtifacts(store, lambda: 0.0)
        store.gate.clear()
        storing = [asyncio.create_task(small.store(named(f"a/{n}"))) for n in range(4)]
        await turns(10)
        storing[0].cancel()
        storing[2].cancel()
        await asyncio.wait([storing[0], storing[2]])
        store.gate.set()
        await asyncio.wait([storing[1], storing[3]])
        assert [one.cancelled() for one in storing] == [True, False, True, False]
        assert [await store.get(key) for key in ("a/1", "a/3")] == [b"x", b"x"]
        await small.store(named("a/9"))
        assert store.batches[-1] == ["a/9"]


async def test_a_key_that_cannot_be_fails_what_brought_it_alone(tmp_path: Path) -> None:
    async with GatedStore(tmp_path) as store:
        small = SmallArtifacts(store, lambda: 0.0)
        await small.store(named("a/b"))
        store.gate.clear()
        storing = [
            asyncio.create_task(small.store(named(key))) for key in ("c/0", "c/1", "a/b/c", "c/2")
        ]
        await turns(10)
        store.gate.set()
        done = await asyncio.gather(*storing, return_exceptions=True)
        assert [type(one) for one in done] == [type(None), type(None), InvalidKeyError, type(None)]
        assert [await store.get(f"c/{n}") for n in range(3)] == [b"x"] * 3


async def test_an_archive_that_is_away_is_left_alone_for_a_while(tmp_path: Path) -> None:
    now = 100.0
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    async with GatedStore(folder) as store:
        small = SmallArtifacts(store, lambda: now)
        folder.rename(elsewhere)
        for _ in range(3):
            with pytest.raises(ArchiveUnavailableError, match="is away"):
                await small.store(named("a/b"))
        assert len(store.batches) == 1
        elsewhere.rename(folder)
        now += AWAY.maximum_seconds
        await small.store(named("a/b"))
        assert await store.get("a/b") == b"x"


async def test_very_many_objects_are_stored_some_at_a_time(tmp_path: Path) -> None:
    async with GatedStore(tmp_path) as store:
        small = SmallArtifacts(store, lambda: 0.0)
        keys = [f"a/{n}" for n in range(2 * OBJECTS_TOGETHER + 1)]
        await small.store(named(*keys, data=b""))
        assert [len(batch) for batch in store.batches] == [OBJECTS_TOGETHER, OBJECTS_TOGETHER, 1]
        assert await store.get(keys[-1]) == b""


async def test_an_archive_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async with GatedStore(tmp_path) as store:
        small = SmallArtifacts(store, lambda: 0.0, store_seconds=0.01)
        store.gate.clear()
        with pytest.raises(ArchiveUnavailableError, match=r"0\.01 s"):
            await small.store(named("a/b"))
        with pytest.raises(ArchiveUnavailableError):
            await small.store(named("a/c"))
        assert store.batches == [["a/b"]]
