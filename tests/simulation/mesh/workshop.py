"""The work on attempts in memory: it takes time, fails now and then, and stores what programs left.

A bundle that is laid out and results that a program wrote are files that were never flushed: a
program that is killed leaves them, a board that loses power may not have them any more. Results that
were collected are flushed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from edge_agent.address_requests import Ask
from edge_agent.attempt_folder import AttemptFolder, keeper_id, parse_keeper_id
from edge_agent.bundles.layout import BundleRefusedError
from edge_agent.download import FetchError
from edge_agent.environments.installer import InstallError
from edge_agent.keeper.client import StartRequest
from edge_agent.keeper.launch import Port
from edge_agent.kept_folders import AsideFolder, KeepLimits
from edge_agent.program import ProgramError
from edge_agent.secrets.secret_mask import SecretMask
from edge_agent.uploads.collect import Collected
from edge_agent.uploads.uploader import GrantRefusedError
from services.archive.artifact_key import LOG_PATHS
from services.archive.object_store import (
    ArchiveUnavailableError,
    ObjectDigestError,
    UploadMissingError,
)
from services.archive.parts import PART_BYTES_MIN
from shoal.backoff import Backoff
from shoal.kept_folder import KeptFolder
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.bundles import BundlesWanted
from shoal.session.folder_files import FilesWanted
from shoal.session.uploads import ArtifactContent, ArtifactParts, UploadGrant
from tests.simulation.mesh import pinned
from tests.simulation.mesh.archive import SCHEME, ExpiredError, MemoryArchive
from tests.simulation.mesh.network import Network
from tests.simulation.mesh.spool import SpoolDisk

ARCHIVE_HOST = "archive"
LAY_OUT_SECONDS = 0.05
BUILD_SECONDS = 0.3
FETCH_SECONDS = 0.05
LOOK_SECONDS = 0.01
AT_HAND = 0.7
"""Of so many jobs that need nothing but an environment that is at hand."""
KEEP = KeepLimits(60.0, 1 << 30)
_AGAIN = Backoff(0.2, 10.0)
_FIRST_DESCRIPTOR = 3


@dataclass(slots=True)
class MemoryFolder:
    """The folder of one attempt: whether its bundle is whole, and results and logs by their path."""

    whole: bool = False
    results: dict[str, bytes] = field(default_factory=dict[str, bytes])
    flushed: bool = False
    """Whether its results are on the disk, as they are once they were collected; logs are not."""


class FolderDisk:
    """The folders of all attempts of a board, by their keeper ids; they outlive its agents.

    Args:
        spools: what stream workers keep in those folders.
    """

    def __init__(self, spools: SpoolDisk) -> None:
        self.folders: dict[str, MemoryFolder] = {}
        self.kept: dict[str, float] = {}
        """Folders that are kept for people, and since when."""
        self.bundles: set[str] = set()
        self._spools = spools

    def remove(self, attempt: str) -> None:
        """Remove a folder, if it is there, and the spool in it."""
        self.folders.pop(attempt, None)
        self._spools.remove(f"/{attempt}/")

    def leave(self, attempt: str, results: dict[str, bytes]) -> None:
        """A program has ended and left results; nothing where its folder is gone."""
        folder = self.folders.get(attempt)
        if folder is not None:
            folder.results |= {f"results/{name}": data for name, data in results.items()}
            folder.results["stderr"] = f"what {attempt} said".encode()

    def lose_power(self, rng: Random) -> None:
        """Lose of each file that was never flushed all, half or nothing."""
        for folder in self.folders.values():
            folder.whole = folder.whole and rng.random() < 0.5
            for path, data in tuple(folder.results.items()):
                if folder.flushed and path not in LOG_PATHS:
                    continue
                match rng.randrange(3):
                    case 0:
                        del folder.results[path]
                    case 1:
                        folder.results[path] = data[: len(data) // 2]
                    case _:
                        pass


@dataclass(eq=False)
class MemoryWorkshop:
    """See `Workshop` of the agent.

    Args:
        rng: draws how long things take, and what fails.
        disk: has the folders.
        archive: takes artifacts.
        network: whether the archive is reached.
        host: the board.
    """

    rng: Random
    disk: FolderDisk
    archive: MemoryArchive
    network: Network
    host: str
    failing: float = 0.0
    """Which part of all preparations fails for good, from 0 to 1."""
    slow: float = 1.0
    """By how much everything takes longer than usual."""
    _wanted: tuple[str, ...] = ()
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def bench(self, ref: AttemptRef) -> MemoryWorkbench:
        """See `Workshop`."""
        return MemoryWorkbench(self, ref)

    def at_hand(self, assignment: Assignment) -> bool:
        """See `Workshop`; of what could be at hand some is not."""
        return _is_plain(assignment) and self.rng.random() < AT_HAND

    def holds(self, ref: AttemptRef) -> bool:
        """See `Workshop`."""
        del ref
        return False

    def bundles(self) -> tuple[str, ...]:
        """See `Workshop`."""
        return tuple(sorted(self.disk.bundles))

    def want(self, wanted: BundlesWanted) -> None:
        """See `Workshop`."""
        self._wanted = tuple(one.digest for one in wanted.bundles if one.url)
        self._changed.set()

    async def prefetch(self) -> None:
        """See `Workshop`."""
        while True:
            self._changed.clear()
            missing = [one for one in self._wanted if one not in self.disk.bundles]
            if not missing:
                await self._changed.wait()
                continue
            await self.work(FETCH_SECONDS)
            if not self.fails():
                self.disk.bundles.add(missing[0])

    def kept(self) -> tuple[KeptFolder, ...]:
        """See `Workshop`."""
        return tuple(
            KeptFolder(ref, f"/kept/{key}", 1)
            for key in self.disk.kept
            if (ref := parse_keeper_id(key)) is not None
        )

    async def trim(self, *, short: bool) -> None:
        """See `Workshop`."""
        kept = [
            AsideFolder(ref, Path(key), int(since), 1)
            for key, since in self.disk.kept.items()
            if (ref := parse_keeper_id(key)) is not None
        ]
        for one in KEEP.surplus(kept, asyncio.get_running_loop().time(), short=short):
            del self.disk.kept[str(one.path)]

    async def ended(self, ref: AttemptRef) -> None:
        """See `Workshop`."""

    async def sweep(self, known: Collection[str], running: Collection[str]) -> None:
        """See `Workshop`."""
        del running
        await self.work(LOOK_SECONDS)
        for attempt in tuple(self.disk.folders):
            if attempt not in known:
                self.disk.remove(attempt)

    async def work(self, seconds: float) -> None:
        """Take some time, usually less than so many seconds."""
        await asyncio.sleep(seconds * self.slow * (0.2 + self.rng.random()))

    def fails(self) -> bool:
        """Whether this fails now."""
        return self.failing > 0 and self.rng.random() < self.failing


class MemoryWorkbench:
    """See `Workbench` of the agent."""

    def __init__(self, workshop: MemoryWorkshop, ref: AttemptRef) -> None:
        self._shop = workshop
        self._ref = ref
        self._key = keeper_id(ref)
        self._built = False
        self._preparing: asyncio.Task[StartRequest | None] | None = None

    def prepare(self, assignment: Assignment) -> None:
        """See `Workbench`."""
        self._preparing = asyncio.get_running_loop().create_task(self._prepare(assignment))

    def ready(self) -> asyncio.Future[StartRequest | None] | None:
        """See `Workbench`."""
        return self._preparing

    async def _prepare(self, assignment: Assignment) -> StartRequest | None:
        shop = self._shop
        if self._key in shop.disk.folders:
            return None
        folder = shop.disk.folders[self._key] = MemoryFolder()
        await shop.work(LOOK_SECONDS)
        folder.whole = self._built = not shop.fails()
        return _request(assignment) if folder.whole else None

    async def lay_out(self, assignment: Assignment, waiting: Callable[[str], None]) -> None:
        """See `Workbench`."""
        shop = self._shop
        folder = shop.disk.folders[self._key] = MemoryFolder()
        waiting(f"bundle {assignment.bundle_digest[:12]} is fetched and laid out, until it is")
        await shop.work(LAY_OUT_SECONDS)
        if shop.fails():
            raise BundleRefusedError("the bundle in memory is broken: bundle it again")
        folder.whole = True
        if assignment.bundle_digest:
            shop.disk.bundles.add(assignment.bundle_digest)

    async def build(self, assignment: Assignment, progress: Callable[[str], None]) -> None:
        """See `Workbench`."""
        del assignment
        progress("its environment is built in memory")
        await self._shop.work(BUILD_SECONDS)
        if self._shop.fails():
            raise InstallError("a package in memory cannot be installed: name another one")
        self._built = True

    async def fetch(self, assignment: Assignment, waiting: Callable[[str], None], ask: Ask) -> None:
        """See `Workbench`."""
        if assignment.job.files:
            waiting("its files are fetched, until all are there")
        for folder in assignment.job.folders:
            files = pinned.LISTING.files
            urls = await ask(FilesWanted(self._ref, folder.name, 0, len(files)))
            named = [url.removeprefix(SCHEME).partition("?")[0] for url in urls]
            if assignment.listings.get(folder.name) != pinned.DIGEST or named != [
                f"{pinned.LISTING.root}{file.key}" for file in files
            ]:
                raise FetchError(f"{named} of {assignment.listings} is not what was pinned")
        await self._shop.work(FETCH_SECONDS)
        if self._shop.fails():
            raise FetchError("a file input in memory is not there: name another one")

    async def plan(self, assignment: Assignment, progress: Callable[[str], None]) -> StartRequest:
        """See `Workbench`."""
        if self._preparing is not None:
            await asyncio.shield(self._preparing)
        folder = self._shop.disk.folders.get(self._key)
        if _is_plain(assignment) and (folder is None or not folder.whole):
            await self.lay_out(assignment, progress)
        if not self._built:
            await self.build(assignment, progress)
        await self._shop.work(LOOK_SECONDS)
        folder = self._shop.disk.folders.get(self._key)
        if folder is None or not folder.whole:
            raise ProgramError(f"the folder of {self._ref.name} has no program: bundle it again")
        return _request(assignment)

    def begins(self) -> None:
        """See `Workbench`."""

    def left_nothing(self, assignment: Assignment) -> bool:
        """See `Workbench`."""
        del assignment
        folder = self._shop.disk.folders.get(self._key)
        return folder is not None and not any(folder.results.values())

    async def collect(
        self, assignment: Assignment, *, succeeded: bool, contents: bool = False
    ) -> Collected:
        """See `Workbench`."""
        await self._shop.work(LOOK_SECONDS)
        folder = self._shop.disk.folders.get(self._key)
        if folder is None:
            return Collected((), "the job's folder is there no more")
        job = assignment.job
        every = bool(job.archive) and job.archive_on.takes(succeeded=succeeded)
        found = tuple(
            Artifact(path, len(data), hashlib.sha256(data).hexdigest())
            for path, data in sorted(folder.results.items())
            if every or path in LOG_PATHS
        )
        if every:
            folder.flushed = True
        # Every third travels as what is large does, in one part.
        parts = tuple(
            ArtifactParts(one.path, PART_BYTES_MIN, (one.sha256,))
            for one in found
            if one.size_bytes and int(one.sha256, 16) % 3 == 0
        )
        # Every second is small enough to travel with the question.
        small = tuple(
            ArtifactContent(one.path, folder.results[one.path])
            for one in found
            if contents and int(one.sha256, 16) % 2 == 0
        )
        return Collected(found, parts=parts, contents=small)

    async def store(
        self,
        artifact: Artifact,
        grant: UploadGrant,
        waiting: Callable[[str], None],
        *,
        salvaged: bool = False,
    ) -> Artifact:
        """See `Workbench`; an archive that is away or out of reach is tried again."""
        failures = 0
        while True:
            folder = self._shop.disk.folders.get(self._key)
            data = None if folder is None else folder.results.get(artifact.path)
            if data is None:
                raise FileNotFoundError(2, "no such file", artifact.path)
            trouble = await self._put(grant, data)
            if not trouble:
                return Artifact(artifact.path, artifact.size_bytes, artifact.sha256, grant.key)
            failures += 1
            delay = _AGAIN.delay_seconds(failures, self._shop.rng.random())
            waiting(f"{artifact.path!r} waits for the archive: {trouble}; until it has taken it")
            await asyncio.sleep(delay)

    async def store_parts(
        self,
        artifact: Artifact,
        parts: ArtifactParts,
        grant: UploadGrant,
        waiting: Callable[[str], None],
        *,
        salvaged: bool = False,
    ) -> None:
        """See `Workbench`."""
        for part in grant.parts:
            there = UploadGrant(grant.path, grant.key, part.url, part.headers)
            await self.store(artifact, there, waiting, salvaged=salvaged)

    async def keep(self, mask: SecretMask) -> None:
        """See `Workbench`."""
        del mask
        disk = self._shop.disk
        if self._key in disk.folders:
            disk.kept[self._key] = asyncio.get_running_loop().time()
        disk.remove(self._key)

    def throw_at_once(self) -> asyncio.Future[bool] | None:
        """See `Workbench`."""
        folder = self._shop.disk.folders.get(self._key)
        if self._preparing is None or folder is None or any(folder.results.values()):
            return None
        return asyncio.get_running_loop().create_task(self._throw())

    async def _throw(self) -> bool:
        await self._shop.work(LOOK_SECONDS)
        self._shop.disk.remove(self._key)
        return True

    async def throw(self) -> None:
        """See `Workbench`."""
        self._shop.disk.remove(self._key)

    async def _put(self, grant: UploadGrant, data: bytes) -> str:
        """Try once; return what was wrong if it is worth another try, or nothing."""
        shop = self._shop
        if not shop.network.reachable(shop.host, ARCHIVE_HOST):
            await asyncio.sleep(1.0)
            return "nothing is heard of it"
        try:
            await shop.archive.upload(grant.url, dict(grant.headers), data)
        except ArchiveUnavailableError as error:
            return str(error)
        except (ExpiredError, ObjectDigestError, UploadMissingError) as error:
            raise GrantRefusedError(f"{grant.key}: {error!r}") from error
        return ""


def _is_plain(assignment: Assignment) -> bool:
    return not (assignment.bundle_digest or assignment.job.files or assignment.job.folders)


def _request(assignment: Assignment) -> StartRequest:
    """What a keeper in memory is asked for; of the variables those that `Program` heeds."""
    job, ref = assignment.job, assignment.ref
    names = [
        *((stream.name, "in") for stream in job.streams),
        *((output.name, "out") for output in job.outputs),
    ]
    ports = [
        Port(name, direction, number)
        for number, (name, direction) in enumerate(names, _FIRST_DESCRIPTOR)
    ]
    inputs = {stream.name: {"block_count": stream.block_count} for stream in job.streams}
    folder = AttemptFolder(Path("/attempts") / keeper_id(ref))
    return StartRequest(
        attempt=keeper_id(ref),
        argv=job.run,
        env={
            "SHOAL_JOB": job.name,
            "SHOAL_NAME": ref.name,
            "SHOAL_NAMESPACE": ref.namespace,
            "SHOAL_REPLICA": str(assignment.replica),
            "SHOAL_REPLICAS": str(assignment.replicas),
            "SHOAL_ATTEMPT": str(ref.number),
            "SHOAL_EPOCH": str(ref.epoch),
            "SHOAL_PORTS": json.dumps({"inputs": inputs}),
        },
        cwd=folder.work,
        stdout=folder.stdout,
        stderr=folder.stderr,
        ports=tuple(ports),
        timeout_seconds=job.timeout_seconds,
        grace_seconds=job.grace_seconds,
    )
