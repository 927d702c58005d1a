"""The work on one attempt in its folder: lay out, build, fetch, plan, collect, store, keep or throw away."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge_agent.address_requests import Ask
from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.bundles.layout import BundleRefusedError, lay_out
from edge_agent.directory_times import DirectoryTimes, directory_times, file_time
from edge_agent.download import FetchError
from edge_agent.environments.cache import AtHand
from edge_agent.environments.used import use_environment, used_environment
from edge_agent.file_inputs import read_fetched, write_fetched
from edge_agent.keeper.client import StartRequest
from edge_agent.long_work import Steps, done_at_once
from edge_agent.removal import remove_plain
from edge_agent.sandbox.job_folders import (
    hand_over,
    hand_over_fresh,
    make_places,
    open_attempt,
    owner_of,
)
from edge_agent.sandbox.planning import AttemptDoor
from edge_agent.secrets.masked_file import mask_file
from edge_agent.secrets.secret_mask import SecretMask, mask_of
from edge_agent.spare_folders import (
    JOB_PLACES,
    USER_PLACES,
    MadeFolder,
    make_closed,
    take_back,
)
from edge_agent.tree import PlainFile
from edge_agent.uploads.collect import Collected, collect, left_nothing, locate
from edge_agent.workshop_tools import WorkshopTools
from services.archive.artifact_key import LOG_PATHS
from services.runtime.log import fields
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.placed_folder import FolderError, resolved
from shoal.sandbox import SandboxLevel
from shoal.secret import SecretForm
from shoal.session.assignment import Assignment
from shoal.session.uploads import ArtifactParts, UploadGrant
from shoal.spec import Job, Layout

LOG = logging.getLogger(__name__)

_STANDARD_ARCHIVE = ("results/**",)
_FRESH = frozenset({"results"})
"""What lies in the folder of a job that brings nothing along."""
_WILD = frozenset("*?[\\")


class FolderWorkbench:
    """A bench for one attempt; see `edge_agent.links.workshop.Workbench`.

    Args:
        ref: which attempt.
        folder: where it lives.
        tools: what the benches of the node share.
    """

    def __init__(self, ref: AttemptRef, folder: AttemptFolder, tools: WorkshopTools) -> None:
        self._ref = ref
        self._folder = folder
        self._tools = tools
        self._environment = Path()
        self._prepared: asyncio.Future[StartRequest | None] | None = None
        self._door = AttemptDoor()
        self._made: MadeFolder | None = None
        self._job: Job | None = None
        # What lay in the job's folder before its program; forgotten with the agent's process.
        self._before: frozenset[str] | None = None
        # Directories in which it left nothing.
        self._empty: tuple[str, ...] = ()
        # What was seen of its directories before its program, and after its end if that proves something.
        self._seen: DirectoryTimes | None = None
        self._times: DirectoryTimes | None = None
        self._asked_at = 0

    def prepare(self, assignment: Assignment) -> None:
        """Begin to make ready what is at hand: the folder, and how the program is started; `plan` waits for it.

        All of it is one piece of short work; where something is not as it should be, `plan` goes step by step.
        """
        tools = self._tools
        at_hand = environment_at_hand(assignment, tools)
        if at_hand is None:
            return
        tools.environments.noting()
        self._prepared = tools.work.short.do(
            partial(self._prepare, assignment, at_hand), quietly=True
        )
        self._prepared.add_done_callback(lambda _: tools.environments.noted(at_hand))

    def ready(self) -> asyncio.Future[StartRequest | None] | None:
        """What `prepare` began; it has None where `plan` has to go step by step."""
        if self._prepared is not None:
            self._tools.work.short.look(self._prepared)
        return self._prepared

    def _prepare(self, assignment: Assignment, at_hand: AtHand) -> StartRequest | None:
        tools, folder, job = self._tools, self._folder, assignment.job
        sandbox = tools.sandbox
        if not tools.environments.use_at_hand(at_hand, tools.work.clock()):
            return None
        level = sandbox.ready(job)
        try:
            made = tools.spares.take(folder.text, level, str(at_hand.place))
        except FileExistsError:
            return None  # of a life before of this name
        self._environment = at_hand.place
        if made.user >= 0:
            sandbox.grant(folder.name, made.user)
        self._door = sandbox.door_of(folder.name, level)
        if job.archive == _STANDARD_ARCHIVE:
            self._give(made)
            self._before = _FRESH
            request = self._request(assignment)
        else:
            if made.user >= 0:
                take_back(folder.text)
            _make_results(folder, job.archive)
            request = done_at_once(self._planned(assignment))
        if not assignment.has_ports:  # which leave more there
            self._made = made
        return request

    def _give(self, made: MadeFolder) -> None:
        """Give the folder to its user, if it has one and was not given to it ahead, and open it for that user."""
        path, uid = self._folder.text, self._door.uid
        if made.user >= 0:
            open_attempt(path)
        elif uid >= 0:
            hand_over_fresh(path, uid)
        self._seen = made.times or directory_times(path, USER_PLACES if uid >= 0 else JOB_PLACES)

    async def lay_out(self, assignment: Assignment, waiting: Callable[[str], None]) -> None:
        """Lay the bundle out in a fresh folder."""
        fetched = await asyncio.to_thread(read_fetched, self._folder)
        environment = await asyncio.to_thread(used_environment, self._folder.path)
        await self._tools.trash.throw(self._folder.path)
        await asyncio.to_thread(self._make_folder, fetched, environment, spool=assignment.has_ports)
        try:
            if assignment.bundle_digest:
                flat = assignment.job.layout is Layout.FLAT
                digest = assignment.bundle_digest
                async with self._tools.bundles.borrow(
                    digest,
                    assignment.bundle_url,
                    waiting=waiting,
                    pieces_url=assignment.bundle_pieces_url,
                ) as archive:
                    waiting(f"bundle {digest[:12]} is being laid out, until all of it is")
                    await self._tools.work.run(lay_out(archive, self._folder.work, flat=flat))
            await asyncio.to_thread(_make_results, self._folder, assignment.job.archive)
        except BaseException:
            # Half a bundle is of no use, and its room may be what the next attempt needs.
            with contextlib.suppress(OSError):
                await self._tools.trash.throw(self._folder.work)
            raise

    async def build(self, assignment: Assignment, progress: Callable[[str], None]) -> None:
        """Build the environment, or find it built."""
        job = await self._resolved(assignment, progress)
        # What tells one content of the job's folder from others.
        contents = [assignment.bundle_digest, job.layout.value]
        contents += (assignment.listings.get(folder.name, "") for folder in job.folders)
        level = await asyncio.to_thread(self._tools.sandbox.ready, job)
        self._environment = await self._tools.environments.get(
            job.environment,
            self._folder.work,
            " ".join(contents),
            progress,
            self._folder.path,
            namespace=self._ref.namespace,
            level=level,
        )

    async def _resolved(self, assignment: Assignment, waiting: Callable[[str], None]) -> Job:
        """The job as it is run, with files of its inputs in the places of `{inputs.NAME.entry}`."""
        if self._job is None:
            placed = await self._tools.folders.listed(assignment, waiting)
            try:
                self._job = resolved(assignment.job, placed)
            except FolderError as error:
                raise FetchError(str(error)) from error
        return self._job

    async def fetch(self, assignment: Assignment, waiting: Callable[[str], None], ask: Ask) -> None:
        """Fetch the file inputs, each to where the job finds it."""
        for file in assignment.job.files:
            url = assignment.file_urls.get(file.name, "")
            if not url:
                raise FetchError(f"there is no address for the file input {file.name!r}")
            target = _place(self._folder.work, file.path)
            await self._tools.inputs.place(file, url, target, self._folder, waiting)
        for placed in (await self._tools.folders.listed(assignment, waiting)).values():
            await self._tools.folders.place(
                assignment,
                placed,
                self._folder,
                lambda path: _place(self._folder.work, path),
                ask,
                waiting,
            )

    async def plan(self, assignment: Assignment, progress: Callable[[str], None]) -> StartRequest:
        """Say how the program is started; see `Workbench`."""
        if self._prepared is not None:
            self._tools.work.short.look(self._prepared)
            # Shielded, since what a thread does is not stopped by a cancellation.
            request = await asyncio.shield(self._prepared)
            self._prepared = None
            if request is not None:
                return request
        if self._environment == Path():
            # An agent of before has prepared it, or was about to. The link to its environment is made last, so where
            # that is missing nothing was started there.
            if await asyncio.to_thread(used_environment, self._folder.path) is None:
                await self.lay_out(assignment, progress)
            await self.build(assignment, progress)
        job = await self._resolved(assignment, progress)
        return await self._tools.work.run(self._planned(replace(assignment, job=job)))

    def _planned(self, assignment: Assignment) -> Steps[StartRequest]:
        """Look at what lies in the folder, give it to its user, and say how the program is started."""
        door = self._door = self._tools.sandbox.door(self._ref, assignment.job)
        if door.uid >= 0:
            yield from hand_over(self._folder, door.uid)
        elif door.level is not SandboxLevel.NONE:
            make_places(self._folder)
        self._before = frozenset(os.listdir(self._folder.work))  # noqa: PTH208 - often
        return self._request(assignment)

    def _request(self, assignment: Assignment) -> StartRequest:
        """Say how the program is started."""
        tools, folder, door = self._tools, self._folder, self._door
        secrets = self._place_secrets(assignment, door.uid)
        outline = tools.starts.of(
            assignment.job, str(self._environment), door, folder.text.rpartition("/")[0], secrets
        )
        plan = tools.sandbox.plan(door, outline.sandbox, folder)
        return outline.program.request(assignment, folder, door.uid, secrets, plan)

    def begins(self) -> None:
        """Note the time of files: what the program changes has that one or a later one."""
        self._asked_at = file_time()

    def left_nothing(self, assignment: Assignment) -> bool:
        """Whether a look shows that the program left nothing, of one with a user also no process and no memory."""
        uid, folder, seen = self._door.uid, self._folder, self._seen
        if uid >= 0 and not self._tools.sandbox.close_at_once(folder, uid):
            return False
        times = self._times = seen if seen is not None and seen.prove(self._asked_at) else None
        nothing = left_nothing(folder.text, self._before, assignment.job.archive, times)
        # Nothing can come there any more, since its user has no process.
        self._empty = JOB_PLACES if nothing and uid >= 0 else ()
        return nothing

    async def collect(
        self, assignment: Assignment, *, succeeded: bool, contents: bool = False
    ) -> Collected:
        """Find, measure and hash what is archived after such an end."""
        wanted = assignment.job.archive_on.takes(succeeded=succeeded)
        steps = self._collected(assignment, wanted=wanted, contents=contents)
        return await self._tools.work.run(steps)

    def _collected(
        self, assignment: Assignment, *, wanted: bool, contents: bool
    ) -> Steps[Collected]:
        owner = self._tools.sandbox.close(self._folder)
        return (
            yield from collect(
                self._folder.work,
                assignment.job.archive if wanted else (),
                self._folder.path,
                self._ref,
                self._before if wanted else None,
                mask=mask_of(assignment),
                owner=owner,
                contents=contents,
            )
        )

    async def store(
        self,
        artifact: Artifact,
        grant: UploadGrant,
        waiting: Callable[[str], None],
        *,
        salvaged: bool = False,
    ) -> Artifact:
        """Store one file where it was granted."""
        file = await asyncio.to_thread(self._locate, artifact)
        return await self._tools.uploader.store(file, artifact, grant, waiting, salvaged=salvaged)

    async def store_parts(
        self,
        artifact: Artifact,
        parts: ArtifactParts,
        grant: UploadGrant,
        waiting: Callable[[str], None],
        *,
        salvaged: bool = False,
    ) -> None:
        """Store the parts of one file that were granted."""
        file = await asyncio.to_thread(self._locate, artifact)
        await self._tools.uploader.store_parts(
            file, artifact, parts, grant, waiting, salvaged=salvaged
        )

    async def keep(self, mask: SecretMask) -> None:
        """Keep the folder for people, without secrets in its logs, for as long as the node keeps such."""
        try:
            for name in LOG_PATHS:
                with contextlib.suppress(FileNotFoundError):
                    await self._tools.work.run(mask_file(self._folder.path / name, mask))
        except OSError as error:
            LOG.warning("a folder is not kept", extra=fields(path=self._folder.path, why=error))
            await self.throw()
            return
        await self._tools.kept.keep(self._ref, self._folder)
        await self._let_go()

    def throw_at_once(self) -> asyncio.Future[bool] | None:
        """Throw the folder away if a job has made nothing in it; the future says whether it was like that."""
        if self._made is None:
            return None
        return self._tools.work.short.do(self._remove, quietly=True)

    async def throw(self) -> None:
        """Throw the folder away: at once where a job has made nothing in it."""
        if not await self._tools.work.short.do(self._remove):
            await self._tools.trash.throw(self._folder.path)
            await self._let_go()

    def _remove(self) -> bool:
        path, level, sandbox = self._folder.text, self._door.level, self._tools.sandbox
        if not self._is_spared():
            mounts = level is SandboxLevel.NONE and os.geteuid() == 0
            if not remove_plain(path, mounts=mounts):
                return False
        sandbox.let_go(self._folder.name)
        return True

    def _is_spared(self) -> bool:
        """Whether the folder is one for attempts to come, given to the user of one if it was a user's."""
        made, door, sandbox = self._made, self._door, self._tools.sandbox
        if made is None:
            return False
        following = sandbox.reserve() if door.uid >= 0 else -1
        spared = self._tools.spares.put(
            self._folder.text, door.level, made, door.uid, self._empty, self._times, following
        )
        if not spared:
            sandbox.restore(following)
        return spared

    async def _let_go(self) -> None:
        await asyncio.to_thread(self._tools.sandbox.let_go, keeper_id(self._ref))

    def _locate(self, artifact: Artifact) -> PlainFile:
        folder = self._folder
        return locate(folder.work, folder.path, artifact, owner_of(folder.path))

    def _place_secrets(self, assignment: Assignment, user: int) -> Path | None:
        """Lay out the secrets that the program is given as files, and return where; None if there are none."""
        if not assignment.job.secrets:
            return None
        values = assignment.secrets
        files = {
            use.variable: values[use.name]
            for use in assignment.job.secrets
            if use.form is SecretForm.FILE and use.name in values
        }
        return self._tools.secrets.place(self._ref, files, user) if files else None

    def _make_folder(
        self, fetched: Mapping[str, str], environment: Path | None, *, spool: bool
    ) -> None:
        make_closed(self._folder.text)
        self._folder.work.mkdir()
        if environment is not None:
            use_environment(self._folder.path, environment)
        if spool:
            self._folder.spool.mkdir()
        write_fetched(self._folder, fetched)


def environment_at_hand(assignment: Assignment, tools: WorkshopTools) -> AtHand | None:
    """Return the environment of an attempt that needs nothing else; None where something is to be fetched or built."""
    job = assignment.job
    if assignment.bundle_digest or job.files or job.folders:
        return None
    level = tools.sandbox.level_for(job)
    if level is None:
        return None
    return tools.environments.at_hand(job.environment, assignment.ref.namespace, level)


def _make_results(folder: AttemptFolder, archive: Iterable[str]) -> None:
    """Make `results/`, and the folders of which all is archived, as in `Results/**`."""
    for pattern in archive:
        name = pattern.removesuffix("/**")
        if name != pattern and not _WILD.intersection(name):
            with contextlib.suppress(OSError):  # it is something else there, which is archived then
                if name != "results":
                    _place(folder.work, name).mkdir(parents=True, exist_ok=True)
    try:
        os.mkdir(f"{folder.work}/results")  # noqa: PTH102 - often
    except OSError as error:
        if folder.work.joinpath("results").is_dir():
            return
        raise BundleRefusedError(
            f"the folder results/ cannot be made: {error.strerror}; is it a file of the bundle?"
        ) from error


def _place(work: Path, path: str) -> Path:
    """Where a file input lies: inside the job's folder, also behind the bundle's own links."""
    target = work / path
    parent = os.path.realpath(target.parent)
    root = os.path.realpath(work)
    if parent != root and not parent.startswith(root + os.sep):
        raise FetchError(f"{path!r} leads out of the job's folder: correct the path")
    return target
