"""U8: what attempts have left that did not succeed is kept within bounds, and found again."""

import asyncio
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.disk_watch import FolderUse
from edge_agent.kept_folders import AsideFolder, KeepLimits, KeptFolders
from edge_agent.long_work import LongWork
from edge_agent.trash import Trash
from shoal.limits import KEPT_FOLDERS_MAX
from shoal.names import AttemptRef

NOW = 1_800_000_000
LIMITS = KeepLimits(seconds=60.0, bytes_max=100)


def kept(number: int, age: int = 0, size_bytes: int = 1) -> AsideFolder:
    ref = AttemptRef("default", "p", "j", number, number)
    return AsideFolder(ref, Path(f"/kept/{number:03}"), NOW - age, size_bytes)


def gone(*folders: AsideFolder, short: bool = False) -> list[int]:
    return sorted(one.ref.number for one in LIMITS.surplus(folders, NOW, short=short))


def test_u8_a_folder_goes_when_its_time_is_over() -> None:
    assert gone(kept(1, age=60), kept(2, age=59), kept(3, age=1000)) == [1, 3]


def test_u8_the_oldest_go_while_all_take_too_much_room() -> None:
    assert gone(kept(1, 3, 40), kept(2, 2, 40), kept(3, 1, 40)) == [1]
    assert gone(kept(1, 3, 40), kept(2, 2, 40), kept(3, 1, 101)) == [3]


def test_u8_there_are_only_so_many() -> None:
    many = [kept(number, age=50 - number // 4) for number in range(1, KEPT_FOLDERS_MAX + 4)]
    assert gone(*many) == [1, 2, 3]


def test_u8_a_short_disk_takes_one_at_a_time_and_the_oldest_first() -> None:
    assert gone(kept(1, 3), kept(2, 2), short=True) == [1]
    assert gone(kept(1, 70), kept(2, 2), kept(3, 1), short=True) == [1, 2]
    assert gone(short=True) == []


async def test_u8_what_was_kept_before_the_clock_was_set_has_its_time_from_then_on(
    tmp_path: Path,
) -> None:
    now = 5.0  # seconds since 1970: a board without a battery has just been started
    folder = AttemptFolder(tmp_path / "attempts" / "one")
    folder.work.mkdir(parents=True)

    async def measure(paths: Iterable[tuple[AttemptRef, Path]]) -> tuple[FolderUse, ...]:
        return tuple(FolderUse(ref, 10, 1) for ref, _ in paths)

    async with LongWork(lambda: 0.0) as work:
        trash = Trash(tmp_path / "trash", work, new_id=lambda: "t", chance=lambda: 0.0)
        folders = KeptFolders(
            tmp_path / "kept", trash, limits=LIMITS, wall=lambda: now, measure=measure
        )
        await folders.open()
        await folders.keep(AttemptRef("default", "p", "j", 2, 7), folder)
        now = float(NOW)
        await folders.trim(short=False)
        [found] = folders.listed()
        assert found.until_time is not None
        assert found.until_time.timestamp() == NOW + 60
        now += 60
        await folders.trim(short=False)
        assert folders.listed() == ()


async def test_u8_a_folder_is_moved_aside_once_and_found_by_the_next_agent(tmp_path: Path) -> None:
    ref = AttemptRef("default", "p", "j", 2, 7)
    folder = AttemptFolder(tmp_path / "attempts" / keeper_id(ref))
    folder.work.mkdir(parents=True)
    folder.spool.mkdir()
    (folder.work / "x").write_text("x")
    numbers = count()
    now = float(NOW)

    async def measure(paths: Iterable[tuple[AttemptRef, Path]]) -> tuple[FolderUse, ...]:
        return tuple(FolderUse(ref, 10, 1) for ref, _ in paths)

    async with LongWork(lambda: 0.0) as work:
        trash = Trash(
            tmp_path / "trash", work, new_id=lambda: f"t{next(numbers)}", chance=lambda: 0.0
        )

        async def opened() -> KeptFolders:
            folders = KeptFolders(
                tmp_path / "kept", trash, limits=LIMITS, wall=lambda: now, measure=measure
            )
            await folders.open()
            return folders

        first = await opened()
        await first.keep(ref, folder)
        await first.keep(ref, folder)  # the agent died before it had forgotten the attempt
        (tmp_path / "kept" / "else").mkdir()
        [found] = (await opened()).listed()
        assert [found] == list(first.listed())
        assert (found.ref, found.size_bytes) == (ref, 10)
        assert found.until_time is not None
        assert found.until_time.timestamp() == NOW + 60
        assert (Path(found.path) / "work" / "x").read_text() == "x"
        assert not (Path(found.path) / "spool").exists()
        assert not (tmp_path / "kept" / "else").exists()
        assert not folder.path.exists()
        # The time of several is over while they are looked at twice: as attempts end, and each second.
        for number in range(3, 6):
            another = AttemptRef("default", "p", "j", number, 7)
            folder = AttemptFolder(tmp_path / "attempts" / keeper_id(another))
            folder.work.mkdir(parents=True)
            await first.keep(another, folder)
        now += 60
        await asyncio.gather(first.trim(short=False), first.trim(short=False))
        assert first.listed() == ()
        assert list((tmp_path / "kept").iterdir()) == []
        # It cannot be kept, and is in no one's way.
        (tmp_path / "kept").rmdir()
        (tmp_path / "kept").touch()
        folder.work.mkdir(parents=True)
        await first.keep(ref, folder)
        assert (first.listed(), folder.path.exists()) == ((), False)
