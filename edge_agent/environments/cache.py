"""Environments on this node: built once by key, complete or not there at all, the oldest unused go first.

A build happens in a folder of its own, `KEY-BUILD`, at the place where it stays, since scripts of a
virtual environment carry its path. A seal that is written last says that it is complete; what
lacks one is the rest of a build that was interrupted, and goes when the agent starts.

What an attempt of this node uses (`used.py`) is never removed. The others go while all of them and the
packages that they were built from take more than is set, or leave too little of the disk free.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from edge_agent.environments.build_room import BuildRoom
from edge_agent.environments.build_rooms import BuildRooms, NoBuildRoomError
from edge_agent.environments.installer import Installer, InstallError
from edge_agent.environments.interpreter import Interpreter, Interpreters
from edge_agent.environments.ownership import LeftBehindError, take_over
from edge_agent.environments.package_store import PackageStore
from edge_agent.environments.recipe import Recipe, read_recipe
from edge_agent.environments.seal import (
    MARKER,
    Seal,
    changed_content,
    folder_times,
    is_intact,
    read_seal,
    same_times,
    seal,
)
from edge_agent.environments.used import silent, use_environment, used_environments
from edge_agent.long_work import LongWork
from edge_agent.trash import Trash
from edge_agent.tree import children
from services.runtime.log import fields
from shoal.sandbox import SandboxLevel
from shoal.spec import Environment

LOG = logging.getLogger(__name__)

_FREE_SHARE: Final = 10
"""One part in so many of the file system stays free."""
_UNREAD_MAX: Final = 1000
_LOOK_SECONDS: Final = 1.0
"""How long a look at all files of an environment is good, while nothing is made or removed in its folders."""
_STAMP_SECONDS: Final = 60.0
"""How exactly it is known when an environment was used last."""
_AT_HAND_MAX: Final = 256
_PYTHONS_OF_THE_NODE: Final = ("", "system")
"""What a job may ask for that is a program of the node's: the agent's own interpreter, and the system's."""


@dataclass(slots=True, eq=False)
class AtHand:
    """An environment that was got before and is likely to be there; `EnvironmentCache.use_at_hand` looks."""

    key: str
    place: Path
    interpreter: Path
    folders: tuple[tuple[str, int], ...] = ()
    looked_at: float = -_STAMP_SECONDS
    used_at: float = -_STAMP_SECONDS


@dataclass(eq=False)
class EnvironmentCache:
    """Builds environments and remembers them.

    Args:
        folder: where they live.
        attempts: where the folders of attempts are, each with a link to what it uses.
        interpreters: finds what they are built for.
        installer: builds them.
        rooms: where they are built, and as which user.
        packages: what they are built from.
        work: looks at their files.
        trash: takes what goes.
        bytes_max: how much they and the packages may take; what is used is kept beyond it.
        build_id: draws a short id for the folder of a build.
        read_after_seconds: how long after its first use the content of one is compared, so that this holds
            up no job that starts, after a power cut least of all.
    """

    folder: Path
    attempts: Path
    interpreters: Interpreters
    installer: Installer = field(repr=False)
    rooms: BuildRooms
    packages: PackageStore
    work: LongWork
    trash: Trash
    _: KW_ONLY
    bytes_max: int
    build_id: Callable[[], str]
    read_after_seconds: float = 60.0
    # One build of a key at a time; a lock goes with the last one that holds it or waits for it.
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(
        default_factory=WeakValueDictionary[str, asyncio.Lock]
    )
    _built: dict[str, tuple[Path, Seal]] = field(default_factory=dict[str, tuple[Path, Seal]])
    _gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is decided what goes, and while the use of one by an attempt is recorded."""
    _building: int = 0
    _at_hand: dict[tuple[Environment, str, SandboxLevel], AtHand] = field(
        default_factory=dict[tuple[Environment, str, SandboxLevel], AtHand]
    )
    """What was got by recipes that say all by themselves."""
    _deciding: bool = False
    """Whether it is being decided what goes."""
    _noting: int = 0
    """For how many attempts it is being noted that they use one which is at hand."""
    _noted: asyncio.Event = field(default_factory=asyncio.Event)
    _given_up: set[Path] = field(default_factory=set[Path])
    """What no attempt gets any more, and one may still use."""
    _silent: frozenset[Path] = frozenset()
    """Attempts that were here before this agent and do not say what they use: an agent of 0.1.0 began them."""
    _read: set[Path] = field(default_factory=set[Path])
    """Whose content has been compared, or is about to be, since the agent started."""
    _opened: set[Path] = field(default_factory=set[Path])
    """What the agent alone writes to and all users read, as this agent has seen to."""
    _unread: asyncio.Queue[tuple[str, Path]] = field(
        default_factory=lambda: asyncio.Queue(_UNREAD_MAX)
    )

    async def open(self) -> None:
        """Find what is complete, and remove what is not."""
        self._built, self._given_up = await asyncio.to_thread(self._scan)
        await self.rooms.clear()
        self._silent = await asyncio.to_thread(silent, children(self.attempts))
        async with self._decision():
            await self._clear()

    async def run(self) -> None:
        """Compare the contents of what was built before the agent started, each some time after its first use."""
        while True:
            key, place = await self._unread.get()
            await asyncio.sleep(self.read_after_seconds)
            try:
                changed = await self.work.run(changed_content(place))
            except (OSError, ValueError) as error:
                changed = str(error)
            if changed and (built := self._built.get(key)) is not None and built[0] == place:
                await self._give_up(key, place, f"its file {changed} has changed")

    async def get(
        self,
        environment: Environment,
        folder: Path,
        bundle: str,
        progress: Callable[[str], None],
        user: Path,
        *,
        namespace: str = "",
        level: SandboxLevel = SandboxLevel.NONE,
    ) -> Path:
        """Return the folder of a recipe's environment, building it if it is not there; `bin` has its programs.

        Args:
            environment: the recipe.
            folder: the job's folder, where the bundle lies.
            bundle: what tells one bundle, as it is laid out, from others.
            progress: hears what is done.
            user: the folder of the attempt that it is for.
            namespace: whose job it is.
            level: how far the build is kept from the rest of the node: as far as its job.

        Raises:
            InterpreterMissingError, RecipeError, InstallError, ChecksumError, FetchError:
                it cannot be built; nothing is left of it.
        """
        place, alone = await self._get(
            environment, folder, bundle, progress, user, namespace, level
        )
        known = next((key for key, built in self._built.items() if built[0] == place), "")
        if alone is not None and known:
            if len(self._at_hand) >= _AT_HAND_MAX:
                del self._at_hand[next(iter(self._at_hand))]
            at_hand = AtHand(known, place, alone.path)
            self._at_hand[environment, _whose(environment, namespace), level] = at_hand
        return place

    def at_hand(
        self, environment: Environment, namespace: str, level: SandboxLevel
    ) -> AtHand | None:
        """Return what this recipe gave before, if it is likely to be there; nothing is looked at."""
        found = self._at_hand.get((environment, _whose(environment, namespace), level))
        if found is None or self._deciding:
            return None
        built = self._built.get(found.key)
        return None if built is None or built[0] != found.place else found

    def noting(self) -> None:
        """Let nothing go until `noted`: an attempt is about to use what is at hand."""
        self._noting += 1
        self._noted.clear()

    def noted(self, at_hand: AtHand) -> None:
        """Go on: the attempt says by its folder what it uses, or does not use it."""
        self._noting -= 1
        if not self._noting:
            self._noted.set()
        place = at_hand.place
        if place not in self._read and not self._unread.full():
            self._read.add(place)
            self._unread.put_nowait((at_hand.key, place))

    def use_at_hand(self, at_hand: AtHand, now: float) -> bool:
        """Let an attempt use it that says so by its folder; false if it is not what it was. Call it on a thread.

        Args:
            at_hand: what it uses, between `noting` and `noted`.
            now: seconds on a monotonic clock.

        Raises:
            OSError: the disk does not take it.
        """
        built = self._built.get(at_hand.key)
        if built is None or built[0] != at_hand.place or not built[1].stamp:
            return False
        if not self.interpreters.is_same(at_hand.interpreter):
            return False
        if now - at_hand.looked_at >= _LOOK_SECONDS or not same_times(at_hand.folders):
            try:
                folders = folder_times(at_hand.place)
            except OSError:
                return False
            if not is_intact(at_hand.place, built[1]):
                return False
            at_hand.folders, at_hand.looked_at = folders, now
        if now - at_hand.used_at >= _STAMP_SECONDS:
            os.utime(at_hand.place / MARKER)
            at_hand.used_at = now
        return True

    @contextlib.asynccontextmanager
    async def _decision(self) -> AsyncIterator[None]:
        """Decide what goes, once every attempt says by its folder what it uses; no other begins to meanwhile."""
        async with self._gate:
            self._deciding = True
            try:
                while self._noting:
                    await self._noted.wait()
                yield
            finally:
                self._deciding = False

    async def _get(
        self,
        environment: Environment,
        folder: Path,
        bundle: str,
        progress: Callable[[str], None],
        user: Path,
        namespace: str,
        level: SandboxLevel,
    ) -> tuple[Path, Interpreter | None]:
        """Return the folder, and the interpreter if the recipe says all by itself."""
        # Without packages nothing of a stranger runs, and all namespaces share what is built.
        at = SandboxLevel.NONE if _is_plain(environment) else level
        interpreter = await self._interpreter(environment.python, namespace, at)
        recipe = await asyncio.to_thread(
            read_recipe,
            environment,
            interpreter,
            folder,
            bundle,
            self.rooms.environ,
            "" if at is SandboxLevel.NONE else namespace,
        )
        key = recipe.key
        alone = interpreter if recipe.alone else None
        async with self._locks.setdefault(key, asyncio.Lock()):
            if level is SandboxLevel.NONE or key != recipe.plain_key:
                place = await self._built_before(key, progress, user)
            else:
                place = await self._adopted(key, progress, user)
            if place is None and recipe.plain_key != key:
                async with self._locks.setdefault(recipe.plain_key, asyncio.Lock()):
                    place = await self._adopted(recipe.plain_key, progress, user)
            if place is not None:
                return place, alone
            place = await self._build(recipe, interpreter, progress, namespace, at)
            await self._use(key, place, user)
            if at is not level:
                await self._open_to_all(key, place)
        await self._evict()
        return place, alone

    async def _interpreter(self, wanted: str, namespace: str, level: SandboxLevel) -> Interpreter:
        known = self.interpreters.known(wanted)
        if known is not None:
            return known
        # Attempts that come together ask once: each answer takes a process.
        async with self._locks.setdefault(f"interpreter {wanted}", asyncio.Lock()):
            known = self.interpreters.known(wanted)
            if known is None:
                async with self._room(namespace, level) as room:
                    known = await self.interpreters.find(wanted, room)
        return known

    @contextlib.asynccontextmanager
    async def _room(self, namespace: str, level: SandboxLevel) -> AsyncIterator[BuildRoom]:
        try:
            async with self.rooms.open(namespace, level) as room:
                yield room
        except (NoBuildRoomError, LeftBehindError) as error:
            raise InstallError(
                f"the environment cannot be built apart from others: {error}"
            ) from error

    async def _build(
        self,
        recipe: Recipe,
        interpreter: Interpreter,
        progress: Callable[[str], None],
        namespace: str,
        level: SandboxLevel,
    ) -> Path:
        key = recipe.key
        place = self.folder / f"{key}-{self.build_id()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        async with self._gate:
            self._building += 1
        try:
            async with self._room(namespace, level) as room:
                await self.installer.build(recipe, interpreter, place, progress, room)
                await room.take_over(place)
            sealed = await self.work.run(seal(place, key))
        except BaseException:
            await asyncio.shield(self._throw(place))
            raise
        finally:
            self._building -= 1
        self._built[key] = place, sealed
        self._read.add(place)
        if level is not SandboxLevel.NONE:
            self._opened.add(place)
        said = fields(key=key, path=place, size_bytes=sealed.size_bytes)
        LOG.info("environment built", extra=said)
        return place

    async def _built_before(
        self, key: str, progress: Callable[[str], None], user: Path
    ) -> Path | None:
        """What is here of this key, and used from now on; what is not sound is given up."""
        while (built := self._built.get(key)) is not None:
            place, known = built
            if not await self._is_sound(key, place, known):
                await self._give_up(key, place, "its files are not what was built")
                progress("its environment was damaged on this node, and is built anew")
            elif await self._use(key, place, user):
                return place
        return None

    async def _adopted(self, key: str, progress: Callable[[str], None], user: Path) -> Path | None:
        """What was built at level `none`, by an agent of before mostly, made readable for jobs of any user."""
        place = await self._built_before(key, progress, user)
        if place is None or place in self._opened:
            return place
        try:
            await self._open_to_all(key, place)
        except (OSError, LeftBehindError) as error:
            await self._give_up(key, place, f"it cannot be given to jobs of other users: {error}")
            return None
        return place

    async def _open_to_all(self, key: str, place: Path) -> None:
        # An agent in a container was another user before.
        owner = (await asyncio.to_thread(place.lstat)).st_uid
        if await self.work.run(take_over(place, owner)):
            # Its rights are part of its seal.
            self._built[key] = place, await self.work.run(seal(place, key))
        self._opened.add(place)

    async def _is_sound(self, key: str, place: Path, known: Seal) -> bool:
        if not known.stamp:
            # An agent of before has built it.
            if not (place / MARKER).exists():
                return False
            self._built[key] = place, await self.work.run(seal(place, key))
            return True
        return await asyncio.to_thread(is_intact, place, known)

    async def _use(self, key: str, place: Path, user: Path) -> bool:
        """Let an attempt use one; false if it has gone meanwhile."""
        async with self._gate:
            if key not in self._built or self._built[key][0] != place:
                return False
            await asyncio.to_thread(_use, user, place)
        if place not in self._read and not self._unread.full():
            self._read.add(place)
            self._unread.put_nowait((key, place))
        return True

    async def _give_up(self, key: str, place: Path, why: str) -> None:
        """Let no attempt have one any more; it goes once none uses it."""
        LOG.warning("an environment is not used any more", extra=fields(path=place, why=why))
        async with self._decision():
            self._built.pop(key, None)
            self._given_up.add(place)
            await asyncio.to_thread(_unseal, place)
            await self._clear()

    async def _evict(self) -> None:
        """Remove the oldest unused while there is too much, beside what was given up."""
        packages = await self.packages.size_bytes()
        async with self._decision():
            used = await self._clear()
            if packages > self.packages.bytes_max and not self._building:
                await self.packages.clear()
                packages = 0
            total = packages + sum(known.size_bytes for _, known in self._built.values())
            missing = await asyncio.to_thread(_missing_bytes, self.folder)
            for _, key in await asyncio.to_thread(_by_age, dict(self._built)):
                place, known = self._built[key]
                if (total <= self.bytes_max and missing <= 0) or place in used:
                    continue
                del self._built[key]
                total -= known.size_bytes
                missing -= known.size_bytes
                said = fields(key=key, path=place, size_bytes=known.size_bytes)
                LOG.info("environment evicted", extra=said)
                await self._throw(place)

    async def _clear(self) -> frozenset[Path]:
        """Remove what was given up and is not used; return what is used."""
        used = await asyncio.to_thread(self._used)
        for place in self._given_up - used:
            self._given_up.discard(place)
            await self._throw(place)
        return used

    async def _throw(self, place: Path) -> None:
        await self.trash.throw_or_leave(place, "an environment")

    def _used(self) -> frozenset[Path]:
        """What the attempts of this node use, or are about to."""
        attempts = children(self.attempts)
        self._silent = silent(self._silent.intersection(attempts))
        if self._silent:
            return frozenset(self._given_up).union(place for place, _ in self._built.values())
        return used_environments(attempts)

    def _scan(self) -> tuple[dict[str, tuple[Path, Seal]], set[Path]]:
        found: dict[str, tuple[Path, Seal]] = {}
        others: set[Path] = set()
        for place in children(self.folder):
            known = read_seal(place)
            key = place.name.partition("-")[0]
            if known is not None and key not in found:
                found[key] = place, known
            else:
                others.add(place)
        return found, others


def _is_plain(environment: Environment) -> bool:
    return not environment.steps and environment.python in _PYTHONS_OF_THE_NODE


def _whose(environment: Environment, namespace: str) -> str:
    return "" if _is_plain(environment) else namespace


def _use(user: Path, place: Path) -> None:
    use_environment(user, place)
    os.utime(place / MARKER)  # when it was last used


def _unseal(place: Path) -> None:
    with contextlib.suppress(OSError):
        (place / MARKER).unlink(missing_ok=True)


def _by_age(built: Mapping[str, tuple[Path, Seal]]) -> list[tuple[float, str]]:
    """When each was last used, and its key, the oldest first."""
    ages: list[tuple[float, str]] = []
    for key, (place, _) in built.items():
        try:
            ages.append(((place / MARKER).stat().st_mtime, key))
        except OSError:
            ages.append((0.0, key))
    return sorted(ages)


def _missing_bytes(folder: Path) -> int:
    """How much room has to be made so that a share of the file system stays free."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return 0
    return disk.total // _FREE_SHARE - disk.free
