"""The rooms of builds: which user builds for which namespace, and what is kept between builds.

One user builds for all of a namespace that builds at once: they share its kept packages, so a user for each would
keep nothing from the others. With the last of them everything that runs as that user is ended, and the way to the
kept packages is shut. The user stays theirs for a while: kept packages are given to another one file by file.
"""

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.environments.apart_room import ApartRoom
from edge_agent.environments.build_planning import BuildPlanning
from edge_agent.environments.build_room import BuildRoom
from edge_agent.environments.own_room import OwnRoom
from edge_agent.environments.ownership import LeftBehindError, give
from edge_agent.environments.package_store import PackageFolders, PackageStore
from edge_agent.long_work import LongWork, Steps
from edge_agent.sandbox.job_users import JobUsers, NoUserError
from edge_agent.sandbox.user_processes import end_processes_of
from edge_agent.trash import Trash
from edge_agent.tree import children
from services.runtime.log import fields
from shoal.sandbox import SandboxLevel

LOG = logging.getLogger(__name__)

_OPEN: Final = 0o711
_SHUT: Final = 0o700
_KEPT_USERS: Final = 16


class NoBuildRoomError(Exception):
    """A build cannot be kept from the rest of the node as it has to be; the message says why."""


@dataclass(slots=True)
class _Domain:
    """A namespace that builds: its user, how many builds it has, and its kept packages."""

    uid: int = -1
    builds: int = 0
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(eq=False)
class BuildRooms:
    """Opens rooms.

    Args:
        folder: where each build has a folder of the agent's.
        environ: variables of installers of the agent's user.
        store: what builds keep.
        users: users of jobs and builds; None where none can be had.
        work: copies and gives files.
        trash: takes the folders of builds that are over.
        planning: says what is done to their programs.
        room_id: draws a short id for a room.
    """

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    store: PackageStore
    users: JobUsers | None
    work: LongWork
    trash: Trash
    planning: BuildPlanning
    room_id: Callable[[], str]
    _domains: dict[str, _Domain] = field(default_factory=dict[str, _Domain])

    async def clear(self) -> None:
        """Throw away what builds of an agent that has ended left."""
        for left in await asyncio.to_thread(children, self.folder):
            await self.trash.throw_or_leave(left, "the folder of a build")
        # A killed agent has shut nothing, and the number of its user of builds is another's next.
        await asyncio.to_thread(_shut_all, self.store.of("any").folder.parent)

    @contextlib.asynccontextmanager
    async def open(self, namespace: str, level: SandboxLevel) -> AsyncIterator[BuildRoom]:
        """A room for one build of a namespace.

        Raises:
            NoBuildRoomError: no user can be had, or its folders cannot be made and given.
        """
        if level is SandboxLevel.NONE:
            yield OwnRoom(self.environ, self.store, self.work)
            return
        kept = self.store.of(namespace)
        number = self.room_id()
        name, place = f"builds.{namespace}.{number}", self.folder / number
        async with self._user(namespace, kept) as uid:
            room = ApartRoom(
                place,
                os.geteuid() if uid < 0 else uid,
                self.environ,
                kept,
                self.work,
                lambda folder, writes, reads: self.planning.plan(
                    name, uid, level, folder, writes=writes, reads=reads
                ),
            )
            try:
                await self._furnish(room)
                yield room
            finally:
                await asyncio.shield(self.trash.throw_or_leave(place, "the folder of a build"))
                await asyncio.shield(asyncio.to_thread(self.planning.close, name))

    async def _furnish(self, room: ApartRoom) -> None:
        try:
            await asyncio.to_thread(_make_way, self.folder)
            await room.open()
        except OSError as error:
            raise NoBuildRoomError(f"a folder of a build cannot be made: {error}") from error

    @contextlib.asynccontextmanager
    async def _user(self, namespace: str, kept: PackageFolders) -> AsyncIterator[int]:
        domain = self._domains.setdefault(namespace, _Domain())
        domain.builds += 1
        try:
            async with domain.gate:
                try:
                    if domain.uid < 0 and self.users is not None:
                        domain.uid = await asyncio.to_thread(self.users.take, _user_name(namespace))
                    await self._open_kept(kept, domain.uid)
                except NoUserError as error:
                    raise NoBuildRoomError(str(error)) from error
                except OSError as error:
                    raise NoBuildRoomError(f"kept packages cannot be used: {error}") from error
            yield domain.uid
        finally:
            domain.builds -= 1
            if not domain.builds:
                await asyncio.shield(self._leave(namespace, domain, kept))

    async def _leave(self, namespace: str, domain: _Domain, kept: PackageFolders) -> None:
        """Let the user of a namespace go, unless another build has begun meanwhile."""
        async with domain.gate:
            if domain.builds:
                return
            keep = len(self._domains) <= _KEPT_USERS
            await asyncio.to_thread(self._close, namespace, domain.uid, kept, keep=keep)
            if not keep:
                domain.uid = -1
                if not domain.builds:
                    del self._domains[namespace]

    def _close(self, namespace: str, uid: int, kept: PackageFolders, *, keep: bool) -> None:
        with contextlib.suppress(FileNotFoundError):
            kept.folder.chmod(_SHUT)
        if self.users is None or uid < 0:
            return
        if left := end_processes_of(uid):
            LOG.warning("processes of builds cannot be ended", extra=fields(uid=uid, left=left))
        if not keep:
            self.users.free(_user_name(namespace))

    async def _open_kept(self, kept: PackageFolders, uid: int) -> None:
        """Let the user of builds at what they keep; what is not as they left it is thrown away."""
        owner = os.geteuid() if uid < 0 else uid
        await asyncio.to_thread(_make_way, kept.folder.parent.parent, kept.folder.parent)
        # What lies beside them is the agent's; other namespaces may build at this moment.
        await asyncio.to_thread(_shut_all, kept.folder.parent.parent, kept.folder.parent)
        for folder in (kept.uv, kept.pip, kept.wheels):
            try:
                whole = await self.work.run(_given(folder, owner))
            except (OSError, LeftBehindError) as error:
                LOG.warning("kept packages cannot be used", extra=fields(path=folder, error=error))
                whole = False
            if not whole:
                await self.trash.throw(folder)
                await self.work.run(_given(folder, owner))
        await asyncio.to_thread(kept.folder.chmod, _OPEN)


def _user_name(namespace: str) -> str:
    """What the user of its builds is taken for; no attempt is called so."""
    return f"builds.{namespace}"


def _make_way(*folders: Path) -> None:
    """Folders that others may go through, and see nothing of."""
    for folder in folders:
        folder.mkdir(mode=_OPEN, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & _OPEN != _OPEN:
            folder.chmod(mode | _OPEN)


def _shut_all(parent: Path, but: Path | None = None) -> None:
    """Let the agent alone at what lies in a folder."""
    for path in children(parent):
        if path != but and stat.S_IMODE(path.lstat().st_mode) & 0o077:
            path.chmod(_SHUT)


def _given(folder: Path, uid: int) -> Steps[bool]:
    """Give a folder of kept packages to the user that builds now, from the one that built last."""
    folder.mkdir(mode=_SHUT, parents=True, exist_ok=True)
    owner = folder.lstat().st_uid
    if owner == uid:
        return True
    return (yield from give(folder, uid, owner))
