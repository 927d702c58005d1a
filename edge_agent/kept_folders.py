"""What attempts that did not succeed have left stays on the board for a while, for people.

**Rule.** The folder of such an attempt is moved aside as it is, once its program has begun. It goes
when its time is over; before that the oldest goes while there are more than `KEPT_FOLDERS_MAX`, while
all of them take more room than is set, and, one at each look, while the disk is short: work that
could be done is worth more.

**Why names.** When a folder was moved aside stands in its name, behind the attempt's (`parse_keeper_id`):
the rename is all that is to be recorded, so an agent that dies beside it finds the folder either where
it was or here, and needs no journal for it.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_agent.attempt_folder import AttemptFolder, keeper_id, parse_keeper_id
from edge_agent.disk_watch import FolderUse
from edge_agent.trash import Trash
from edge_agent.tree import children
from services.runtime.log import fields
from shoal.kept_folder import KeptFolder
from shoal.limits import KEPT_FOLDERS_MAX
from shoal.names import AttemptRef

LOG = logging.getLogger(__name__)

_CLOCK_SET: Final = 1_767_225_600
"""The beginning of 2026: a board whose clock is behind it has none, as one without a battery at its start."""

_SECONDS_MAX: Final = 10**11
"""A later moment is none that we wrote."""


@dataclass(frozen=True, slots=True)
class AsideFolder:
    """A folder that is kept; `since` is in seconds since the epoch."""

    ref: AttemptRef
    path: Path
    since: int
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class KeepLimits:
    """For how long folders are kept, and how much room all of them may take; 0 bytes keep none."""

    seconds: float
    bytes_max: int

    def surplus(
        self, kept: Iterable[AsideFolder], now: float, *, short: bool
    ) -> Sequence[AsideFolder]:
        """Return those that have to go now.

        Args:
            kept: all that are there.
            now: seconds since the epoch.
            short: whether the disk has too little room for new work.
        """
        newest = sorted(kept, key=lambda one: (one.since, one.path), reverse=True)
        gone: list[AsideFolder] = []
        room = self.bytes_max
        left = 0
        for one in newest:
            late = one.since + self.seconds <= now
            if late or left >= KEPT_FOLDERS_MAX or one.size_bytes > room:
                gone.append(one)
            else:
                room -= one.size_bytes
                left += 1
        if short and left:
            gone.append(next(one for one in reversed(newest) if one not in gone))
        return gone


@dataclass(eq=False)
class KeptFolders:
    """The folders that a board keeps; `open` it.

    Args:
        folder: where they lie, on the file system of the attempts' own.
        trash: takes what goes.
        limits: for how long, and how many.
        wall: seconds since the epoch.
        measure: says what lies in folders.
    """

    folder: Path
    trash: Trash
    _: KW_ONLY
    limits: KeepLimits
    wall: Callable[[], float]
    measure: Callable[[Iterable[tuple[AttemptRef, Path]]], Awaitable[Sequence[FolderUse]]]
    _kept: dict[Path, AsideFolder] = field(default_factory=dict[Path, AsideFolder])

    async def open(self) -> None:
        """Find what an earlier agent kept; what is no folder of ours goes."""
        ours: list[AsideFolder] = []
        for path in await asyncio.to_thread(children, self.folder):
            kept = _read(path)
            if kept is None:
                await self._throw(path)
            else:
                ours.append(kept)
        await self._add(*ours)

    def listed(self) -> tuple[KeptFolder, ...]:
        """Every folder that is kept, the oldest first."""
        return tuple(
            KeptFolder(
                one.ref,
                os.fsencode(one.path).decode("utf-8", "replace"),
                one.size_bytes,
                datetime.fromtimestamp(min(one.since + self.limits.seconds, _SECONDS_MAX), UTC),
            )
            for one in sorted(self._kept.values(), key=lambda one: (one.since, one.path))
        )

    async def keep(self, ref: AttemptRef, folder: AttemptFolder) -> None:
        """Move the folder of an attempt aside; nothing happens where there is none.

        Where it cannot be kept it is thrown away: a disk without room even for that needs it.

        Raises:
            OSError: it cannot be moved.
        """
        if not self.limits.bytes_max or not self.limits.seconds:
            await self.trash.throw(folder.path)
            return
        since = int(self.wall())
        path = self.folder / f"{keeper_id(ref)}.{since}"
        try:
            moved = await asyncio.to_thread(_move, folder.path, path)
        except OSError as error:
            LOG.warning("a folder cannot be kept", extra=fields(path=path, why=error))
            await self.trash.throw(folder.path)
            return
        if moved:
            for part in (folder.spool, folder.ports, folder.home, folder.tmp):
                await self._throw(path / part.name)
            await self._add(AsideFolder(ref, path, since))
            await self.trim(short=False)

    async def trim(self, *, short: bool) -> None:
        """Let go what is not kept any longer; `short` says that the disk needs room."""
        self._learn_the_time()
        for one in self.limits.surplus(self._kept.values(), self.wall(), short=short):
            # Attempts end while others are let go, so another call may have been faster.
            if self._kept.pop(one.path, None) is not None:
                LOG.info("a folder is not kept any longer", extra=fields(path=one.path))
                await self._throw(one.path)

    async def _add(self, *kept: AsideFolder) -> None:
        # All at once: measuring has one deadline, and the session waits for it.
        uses = await self.measure([(one.ref, one.path) for one in kept])
        for one, use in zip(kept, uses, strict=True):
            self._kept[one.path] = replace(one, size_bytes=use.size_bytes)

    def _learn_the_time(self) -> None:
        """Count from now what was moved aside by a clock that was not set yet, or its time would be over."""
        now = int(self.wall())
        if now >= _CLOCK_SET:
            for path, one in self._kept.items():
                if one.since < _CLOCK_SET:
                    self._kept[path] = replace(one, since=now)

    async def _throw(self, path: Path) -> None:
        await self.trash.throw_or_leave(path, "what is not kept")


def _move(source: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except FileNotFoundError:
        return False
    return True


def _read(path: Path) -> AsideFolder | None:
    name, _, since = path.name.rpartition(".")
    ref = parse_keeper_id(name)
    if ref is None or not since.isdecimal() or int(since) > _SECONDS_MAX:
        return None
    return AsideFolder(ref, path, int(since))
