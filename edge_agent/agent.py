"""The agent: the shells around its machines, and what runs beside them.

It carries no stream data and runs no user code, so that a busy job never looks like a dead node.
What must outlive it (jobs, streams) lives in the keeper and the stream worker; what it must know
afterwards lives in its journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, assert_never

import aiohttp

import shoal
from edge_agent.assignment import (
    Desired,
    FromAgent,
    Hello,
    LogPiece,
    NodeCondition,
    Observation,
    Refused,
    UploadsGranted,
)
from edge_agent.attempt_folder import AttemptFolder, keeper_id, parse_keeper_id
from edge_agent.attempt_shell import AttemptShell, Durable
from edge_agent.config import AgentConfig
from edge_agent.content_cache import ContentCache
from edge_agent.disk_gauge import DiskGauge
from edge_agent.disk_watch import (
    DiskWatch,
    FailAttempt,
    FoldersMeasured,
    Measured,
    MeasureFolders,
    Refuse,
)
from edge_agent.download import Downloader
from edge_agent.environments.cache import EnvironmentCache
from edge_agent.environments.installer import Installer
from edge_agent.environments.interpreter import Interpreters
from edge_agent.environments.package_index import installer_environ, pip_files
from edge_agent.file_inputs import FileInputs
from edge_agent.fingerprint import boot_id
from edge_agent.journal import Journal, JournalError
from edge_agent.keeper.client import KeeperClient, KeeperError
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper_link import KeeperLink, program_exit, programs
from edge_agent.lease import NodeLease
from edge_agent.logs import LogShipper
from edge_agent.long_work import LongWork
from edge_agent.node import Node
from edge_agent.sdk_copy import SdkCopy
from edge_agent.session import (
    Closed,
    Confirmed,
    ControllersKnown,
    Deliver,
    Dial,
    Follow,
    HangUp,
    LeaseRenewed,
    Opened,
    Quarantined,
    Recorded,
    Say,
    Session,
    SessionConfig,
    SessionEffect,
    SessionEvent,
    Write,
)
from edge_agent.session_link import SessionLink
from edge_agent.stream_link import (
    HELPER,
    STREAM_ADDRESS,
    STREAM_WORKER,
    StreamLink,
    StreamWorkerPlan,
    process_identity,
)
from edge_agent.trash import Trash
from edge_agent.uploads.uploader import Uploader
from edge_agent.variables import installer_variables, process_variables
from edge_agent.worker import (
    FAILS_FOR_ITS_DISK,
    PREPARING,
    Acknowledged,
    AttachStreams,
    CancelWork,
    CollectArtifacts,
    Conclude,
    DesiredChanged,
    DesiredRecorded,
    DiskFull,
    Fenced,
    Forget,
    Forgotten,
    GrantsReceived,
    Phase,
    PrepareBundle,
    PrepareEnvironment,
    PrepareFiles,
    ProgramEnded,
    ProgramsListed,
    Report,
    Restored,
    SessionOpened,
    StartProgram,
    StopProgram,
    UpdateLanes,
    Upload,
    WantUploads,
    Worker,
    WorkerEffect,
    WorkerEvent,
)
from edge_agent.worker import Journal as JournalEffect
from services.membership.endpoint import parse_address
from services.membership.gossip import Gossip
from services.membership.gossip_member import GossipMember, open_member
from services.membership.member import Member
from services.membership.watch import WatchCutOffError
from services.runtime.address import host_port
from services.runtime.driver import Driver
from services.runtime.log import fields
from services.runtime.outward import outward_host
from services.runtime.process import StartRefusedError
from services.runtime.state_folder import PRIVATE_FILE, prepare_state_folder
from shoal.model import Followed, ReasonCode
from shoal.names import AttemptRef
from shoal.spec import Placement

LOG = logging.getLogger(__name__)

_INBOX_SIZE: Final = 8192
_DISK_SECONDS: Final = 1.0
_KEEPER_SECONDS: Final = 30.0
_STREAMS_READY_SECONDS: Final = 10.0
_LEAVE_SECONDS: Final = 3.0
_SHUTDOWN_SECONDS: Final = 30.0
_SOCKET_PATH_MAX: Final = 107
LOCK_NAME: Final = "agent.lock"
"""File in the state folder that a running agent holds locked, with its process id."""
INSTANCE: Final = "instance"
"""Fact of the journal: drawn when the journal was made."""
FOLLOWED: Final = "followed"
"""Fact of the journal: how much is known of the controller that was followed last, as JSON."""


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """What the process gives its agent: variables, version, programs, clocks and chance.

    `python` is the agent's own interpreter, outside of any virtual environment. `clock` is
    monotonic, `wall` since the epoch, both in seconds; `token` draws a short random word.
    """

    environ: Mapping[str, str]
    version: str
    python: Path
    uv: Path
    clock: Callable[[], float]
    wall: Callable[[], float]
    rng: Random
    token: Callable[[], str]


class Agent:
    """One node's agent; `run` runs it.

    Args:
        config: what the operator set.
        process: what the process gives.
    """

    def __init__(self, config: AgentConfig, process: AgentProcess) -> None:
        self._config = config
        self._process = process
        self._agent_id = process.token()
        self._instance_id = ""
        self._worker = Worker()
        self._session = Session(SessionConfig(), process.rng.random)
        self._worker_driver: Driver[WorkerEvent, WorkerEffect] = Driver(
            self._worker, self._act_on_attempt, process.clock, inbox_size=_INBOX_SIZE
        )
        self._session_driver: Driver[SessionEvent, SessionEffect] = Driver(
            self._session, self._act_on_session, process.clock, inbox_size=_INBOX_SIZE
        )
        self._link = SessionLink(self._session_driver.post, self._hello, process.clock)
        self._logs = LogShipper(self._say)
        self._lease = NodeLease(process.clock)
        self._journal = Journal(config.state / "agent.db")
        self._keeper = KeeperLink(
            config.state / "keeper.sock",
            config.state / "keeper.log",
            process_variables(process.environ),
        )
        self._first_list: asyncio.Future[list[ProcessRecord]] | None = None
        self._shells: dict[AttemptRef, AttemptShell] = {}
        self._group: asyncio.TaskGroup | None = None
        self._node: Node | None = None
        state = config.state
        self._disk = DiskWatch(str(state), config.disk_reserve_bytes)
        self._gauge = DiskGauge(
            state, state / LOCK_NAME, lambda: self._journal.trouble, process.clock
        )

    async def run(self) -> None:
        """Be an agent until cancelled.

        Raises:
            StartRefusedError: the state folder cannot be used, the journal cannot be read, or no
                keeper can be had.
        """
        try:
            await self._run()
        except JournalError as error:
            raise StartRefusedError(str(error)) from error

    async def _run(self) -> None:
        state = self._config.state
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(hold_state(state))
            self._first_list = asyncio.get_running_loop().create_future()
            await stack.enter_async_context(self._journal)
            work = await stack.enter_async_context(LongWork(self._process.clock))
            await stack.enter_async_context(self._gauge)
            self._disk.handle(Measured(await self._gauge.read()), self._process.clock())
            client = await stack.enter_async_context(aiohttp.ClientSession(trust_env=True))
            member = await self._open_member(stack)
            gossip = None if member is None else member.gossip
            async with asyncio.TaskGroup() as group:
                self._group = group
                keeper = group.create_task(self._keeper.run(self._listed, self._exited))
                facts = await self._journal.facts()
                node = self._node = await self._assemble(client, work, facts)
                await node.trash.open()
                await node.environments.open()
                await self._remember(facts)
                await self._restore(node, facts)
                streams = group.create_task(node.streams.run())
                for running in (
                    self._logs.run(),
                    node.trash.run(),
                    self._worker_driver.run(),
                    self._session_driver.run(),
                    self._link.run(),
                    self._find_controllers(gossip),
                    self._watch_disk(node),
                ):
                    group.create_task(running)
                if member is not None:
                    group.create_task(member.run())
                try:
                    await asyncio.Event().wait()
                finally:
                    # Or whoever keeps them alive would start them again.
                    await self._wind_down(gossip, (streams, keeper))

    # ---- beginning

    async def _open_member(self, stack: contextlib.AsyncExitStack) -> GossipMember | None:
        config = self._config
        opening = open_member(
            config,
            {"role": "agent"},
            clock=self._process.clock,
            wall=self._process.wall,
            rng=self._process.rng,
        )
        try:
            member = await stack.enter_async_context(opening)
        except OSError as error:
            raise StartRefusedError(
                f"cannot gossip on {config.gossip}: {error}; choose other addresses for --gossip, "
                "--serf-rpc and --members-http"
            ) from error
        if member is not None and (member.serf_rpc or member.members_http):
            beside = fields(serf_rpc=member.serf_rpc, members_http=member.members_http)
            LOG.info("members are served", extra=beside)
        return member

    async def _assemble(
        self, client: aiohttp.ClientSession, work: LongWork, facts: Mapping[str, str]
    ) -> Node:
        config, process = self._config, self._process
        state = config.state
        own = await asyncio.to_thread(installer_variables, process.environ, state / "installer")
        variables = installer_environ(own, pip_files(process.environ, Path(sys.prefix)))
        downloader = Downloader(client, chance=process.rng.random)
        package = Path(str(shoal.__file__)).parent
        trash = Trash(state / "trash", work, new_id=process.token, chance=process.rng.random)
        return Node(
            attempts=state / "attempts",
            sdk=SdkCopy(package, state / "sdk", process.token),
            environ=process.environ,
            journal=self._journal,
            keeper=self._keeper,
            streams=StreamLink(
                self._keeper,
                StreamWorkerPlan(
                    state / "worker.sock",
                    config.streams,
                    await asyncio.to_thread(_advertised, config),
                    state,
                    process_variables(process.environ),
                ),
                self._journal,
                self._worker_driver.post,
                self._say,
                last_address=facts.get(STREAM_ADDRESS, ""),
            ),
            bundles=ContentCache(
                state / "bundles",
                downloader,
                work,
                what="bundle",
                bytes_max=config.bundle_bytes_max,
            ),
            inputs=FileInputs(
                ContentCache(
                    state / "inputs",
                    downloader,
                    work,
                    what="input",
                    bytes_max=config.input_bytes_max,
                ),
                downloader,
            ),
            environments=EnvironmentCache(
                state / "environments",
                Interpreters(process.uv, process.python, variables),
                Installer(process.uv, variables, downloader, work),
                trash,
                build_id=process.token,
            ),
            uploader=Uploader(client, chance=process.rng.random),
            logs=self._logs,
            work=work,
            trash=trash,
            lease=self._lease,
            wall=process.wall,
            post=self._worker_driver.post,
            say=self._say,
            hint=lambda message: self._session_driver.offer(Say(message)),
        )

    async def _remember(self, facts: Mapping[str, str]) -> None:
        """Take up who this node is and whom it follows; a new journal is a new instance."""
        self._instance_id = facts.get(INSTANCE, "")
        if not self._instance_id:
            self._instance_id = self._process.token()
            await self._journal.note(INSTANCE, self._instance_id)
        self._session.followed = _followed(facts.get(FOLLOWED, ""))

    async def _restore(self, node: Node, facts: Mapping[str, str]) -> None:
        """Take over what an earlier agent left, before anything else happens."""
        if self._first_list is None:
            raise AssertionError("the future is made before the keeper is asked")
        try:
            async with asyncio.timeout(_KEEPER_SECONDS):
                processes = await self._first_list
        except TimeoutError:
            raise StartRefusedError(
                f"no keeper answered at {self._keeper.socket_path} within {_KEEPER_SECONDS:g} s: "
                f"see {self._config.state / 'keeper.log'}"
            ) from None
        records = await self._journal.load()
        booted = boot_id()
        rebooted = facts.get("boot_id", booted) != booted
        worker = next((record for record in processes if record.attempt == HELPER), None)
        survived = (
            worker is not None
            and worker.running
            and facts.get(STREAM_WORKER) == process_identity(worker)
        )
        known = {record.ref for record in records}
        for process in processes:
            ref = parse_keeper_id(process.attempt)
            if not process.helper and ref not in known:
                await self._keeper.forget(process.attempt)
        await _sweep(node.attempts, {keeper_id(ref) for ref in known}, node.trash)
        for record in records:
            if record.phase not in PREPARING and record.phase is not Phase.FORGETTING:
                node.logs.follow(record.ref, node.folder(record.ref).path)
        found = programs(processes, node.folder, self._disk.full)
        restored = Restored(records, found, rebooted, survived)
        for effect in self._worker.handle(restored, self._process.clock()):
            await self._act_on_attempt(effect)
        if facts.get("boot_id") != booted:
            # Nobody waits for it: a start is no reason to need room on the disk.
            self._journal.note("boot_id", booted)
        LOG.info(
            "agent started",
            extra=fields(
                node=self._config.name,
                attempts=len(records),
                processes=len(processes),
                rebooted=rebooted,
                streams_survived=survived,
            ),
        )

    # ---- the machine that drives attempts

    async def _act_on_attempt(self, effect: WorkerEffect) -> None:
        match effect:
            case JournalEffect(record):
                # Asked for here and now, so that entries become durable in this order.
                done = self._journal.put(record)
                await self._shell(record.ref).put(Durable(done))
            case DesiredRecorded(delivery):
                self._spawn(self._recorded(delivery, self._journal.barrier()))
            case (
                PrepareBundle(assignment)
                | PrepareEnvironment(assignment)
                | PrepareFiles(assignment)
                | StartProgram(assignment)
                | AttachStreams(assignment)
                | CollectArtifacts(assignment)
                | Upload(assignment)
            ):
                await self._shell(assignment.ref).put(effect)
            case Report(observation):
                await self._shell(observation.ref).put(effect)
            case (
                StopProgram(ref)
                | UpdateLanes(ref)
                | Conclude(ref)
                | WantUploads(ref)
                | CancelWork(ref)
                | Forget(ref)
            ):
                await self._shell(ref).put(effect)
            case _:
                assert_never(effect)

    def _shell(self, ref: AttemptRef) -> AttemptShell:
        shell = self._shells.get(ref)
        if shell is None:
            if self._node is None:
                raise AssertionError("attempts exist only once the node is assembled")
            shell = self._shells[ref] = AttemptShell(ref, self._node)
            self._spawn(self._run_shell(ref, shell))
        return shell

    async def _run_shell(self, ref: AttemptRef, shell: AttemptShell) -> None:
        await shell.run()
        # Gone before the machine knows, so that a new life of this name gets a shell of its own.
        del self._shells[ref]
        await self._worker_driver.post(Forgotten(ref))

    async def _recorded(self, delivery: int, durable: asyncio.Future[None]) -> None:
        await durable
        await self._session_driver.post(Recorded(delivery))

    async def _listed(self, processes: list[ProcessRecord]) -> None:
        if self._first_list is not None and not self._first_list.done():
            self._first_list.set_result(processes)
        elif self._node is not None:
            found = programs(processes, self._node.folder, self._disk.full)
            await self._worker_driver.post(ProgramsListed(found))

    async def _exited(self, process: ProcessRecord) -> None:
        if process.left:
            LOG.warning("something is left", extra=fields(name=process.attempt, why=process.left))
        if process.attempt == HELPER and self._node is not None:
            await self._node.streams.ended()
        ref = None if process.helper else parse_keeper_id(process.attempt)
        if ref is not None:
            folder = AttemptFolder(self._config.state / "attempts" / process.attempt)
            # Looked at here and now, since it may just have been filled, or have been freed.
            full = self._disk.full_at(await self._gauge.read()) if process.exit_code else ""
            ended = program_exit(process, folder, full)
            await self._worker_driver.post(ProgramEnded(ref, ended))

    # ---- the disk

    async def _watch_disk(self, node: Node) -> None:
        """Look at the disk of the state folder until cancelled."""
        if self._disk.refusal:
            LOG.warning("no new work is taken", extra=fields(why=self._disk.refusal))
        while True:
            seen = Measured(await self._gauge.read())
            for effect in self._disk.handle(seen, self._process.clock()):
                match effect:
                    case Refuse(why):
                        words = "no new work is taken" if why else "new work is taken again"
                        LOG.warning(words, extra=fields(why=why))
                        await self._say(NodeCondition(why))
                    case MeasureFolders():
                        await self._fail_for_disk(node)
                    case FailAttempt():
                        raise AssertionError("folders are measured first")
                    case _:
                        assert_never(effect)
            await asyncio.sleep(_DISK_SECONDS)

    async def _fail_for_disk(self, node: Node) -> None:
        able = [
            record.ref
            for record in self._worker.records.values()
            if record.phase in FAILS_FOR_ITS_DISK
        ]
        uses = await self._gauge.folders((ref, node.folder(ref).path) for ref in able)
        for effect in self._disk.handle(FoldersMeasured(uses), self._process.clock()):
            if isinstance(effect, FailAttempt):
                LOG.warning(
                    "an attempt is failed for the disk",
                    extra=fields(name=effect.ref.name, why=effect.reason.message),
                )
                await self._worker_driver.post(DiskFull(effect.ref, effect.reason))

    # ---- the session

    async def _act_on_session(self, effect: SessionEffect) -> None:
        match effect:
            case Dial(link, address):
                LOG.debug("dialling", extra=fields(controller=address))
                self._link.dial(link, address)
            case HangUp(reason):
                LOG.warning("the session is given up", extra=fields(reason=reason))
                self._link.hang_up()
            case Write():
                self._link.write(effect)
            case Follow(followed):
                # Asked for here and now: what it wants is journalled later, so never without this.
                self._spawn(_durable(self._journal.note(FOLLOWED, _followed_text(followed))))
            case Quarantined(reason):
                LOG.error(
                    "quarantined: the controller is not followed, and everything stays as it is",
                    extra=fields(reason=reason),
                )
            case Opened(welcome):
                LOG.info(
                    "session opened",
                    extra=fields(
                        controller=welcome.controller_id, lease_seconds=welcome.lease_seconds
                    ),
                )
                self._logs.session_opened()
                await self._worker_driver.post(SessionOpened())
            case Closed(reason):
                LOG.warning("session closed", extra=fields(reason=reason))
                self._logs.session_closed()
            case Confirmed(messages):
                for message in messages:
                    await self._confirmed(message)
            case LeaseRenewed(until, lease_seconds):
                if self._lease.renew(until, lease_seconds):
                    self._renew_leases()
            case Deliver(message, delivery):
                await self._deliver(message, delivery)
            case _:
                assert_never(effect)

    def _renew_leases(self) -> None:
        """Let what may not run twice run on, for as long as it is not replaced."""
        for record in self._worker.records.values():
            leased = record.assignment.job.placement is Placement.AT_MOST_ONE_RUNNING
            if leased and record.phase is Phase.RUNNING:
                self._spawn(self._renew_lease(record.ref))

    async def _renew_lease(self, ref: AttemptRef) -> None:
        # A keeper that is gone has taken the program with it; one that ended needs no lease.
        with contextlib.suppress(KeeperError):
            await self._keeper.renew_lease(keeper_id(ref), self._lease.program_until)

    async def _confirmed(self, message: FromAgent) -> None:
        match message:
            case LogPiece():
                self._logs.confirm(message)
            case Observation():
                await self._acknowledged(message)
            case Hello():
                for observation in message.attempts:
                    await self._acknowledged(observation)
            case _:
                pass  # nobody waits for it

    async def _acknowledged(self, observation: Observation) -> None:
        if observation.state.terminal:
            await self._worker_driver.post(Acknowledged(observation.ref, observation.state))

    async def _deliver(self, message: Desired | UploadsGranted | Refused, delivery: int) -> None:
        match message:
            case Desired():
                await self._worker_driver.post(DesiredChanged(message, delivery))
            case UploadsGranted():
                await self._worker_driver.post(GrantsReceived(message))
            case Refused(ref, reason, text):
                LOG.warning(
                    "the controller refused", extra=fields(reason=reason, message=text, ref=ref)
                )
                if ref is not None and reason == ReasonCode.FENCED:
                    await self._worker_driver.post(Fenced(ref))
            case _:
                assert_never(message)

    async def _say(self, message: FromAgent) -> None:
        await self._session_driver.post(Say(message))

    def _hello(self) -> Hello:
        config = self._config
        node = self._node
        if node is None:
            raise AssertionError("nobody is dialled before the node is assembled")
        return Hello(
            node=config.name,
            agent_id=self._agent_id,
            agent_version=self._process.version,
            capacity=config.capacity,
            labels=config.labels,
            architecture=config.architecture,
            stream_address=node.streams.address,
            member_name=config.name if config.gossip else "",
            attempts=self._worker.observations(),
            bundles=node.bundles.digests(),
            instance_id=self._instance_id,
            followed=self._session.followed,
            refuses=self._disk.refusal,
        )

    async def _find_controllers(self, gossip: Gossip | None) -> None:
        """Tell the session whom it may dial: those that are configured, and those that gossip."""
        configured = self._config.controllers
        node = self._node
        if node is not None and not await node.streams.wait_ready(_STREAMS_READY_SECONDS):
            LOG.warning("the stream worker is not there; jobs without streams can run")
        await self._session_driver.post(ControllersKnown(configured))
        while gossip is not None:
            async with gossip.watch() as changes:
                found = {member.name: _grpc(member) for member in gossip.members()}
                found = {name: address for name, address in found.items() if address}
                await self._session_driver.post(ControllersKnown(_each_once(configured, found)))
                try:
                    async for change in changes:
                        member = change.member
                        address = _grpc(member) if member.reachable else ""
                        if address == found.get(member.name, ""):
                            continue
                        found.pop(member.name, None)
                        if address:
                            found[member.name] = address
                        known = _each_once(configured, found)
                        await self._session_driver.post(ControllersKnown(known))
                except WatchCutOffError:
                    continue  # so many changes at once: read them all again
                return

    # ---- the end

    async def _wind_down(
        self, gossip: Gossip | None, keeping: tuple[asyncio.Task[None], ...]
    ) -> None:
        """Say goodbye; jobs and streams go on, unless they were to stop with the agent."""
        await self._link.leave()
        if gossip is not None:
            await gossip.leave(_LEAVE_SECONDS)
        if self._config.stop_jobs:
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)
            await end_keeper(self._keeper.socket_path, _SHUTDOWN_SECONDS)

    def _spawn(self, running: Coroutine[Any, Any, None]) -> None:
        if self._group is None:
            running.close()
            raise AssertionError("nothing happens before the agent runs")
        self._group.create_task(running)


@contextlib.contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Hold a state folder: one agent at a time.

    Raises:
        StartRefusedError: another agent has it, or it cannot be used.
    """
    socket_path = str((state / "keeper.sock").absolute())
    if len(os.fsencode(socket_path)) > _SOCKET_PATH_MAX:
        raise StartRefusedError(
            f"{socket_path} is too long for a Unix socket ({_SOCKET_PATH_MAX} bytes): "
            "choose a shorter --state"
        )
    prepare_state_folder(state, LOCK_NAME)
    try:
        lock = _open_lock(state / LOCK_NAME)
    except OSError as error:
        raise StartRefusedError(
            f"the state folder {state} cannot be used: {error.strerror}; make room for a file and "
            "let this user write there, or choose another --state"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartRefusedError(
                f"another agent runs with --state {state}; end it with: "
                f"shoal agent --down --state {state}"
            ) from None
        # In its place, since a full disk has no room for a new one; without it --down has to guess.
        with contextlib.suppress(OSError):
            os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """Open the lock; a disk that became read-only still has that of an earlier start."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


async def end_keeper(socket_path: Path, deadline_seconds: float) -> bool:
    """End a keeper with everything that it keeps; say whether there was one.

    Raises:
        TimeoutError: it did not end in time.
    """
    try:
        async with KeeperClient(socket_path) as client:
            await client.watch()
            await client.shutdown()
            async with asyncio.timeout(deadline_seconds):
                async for _ in client.exits():
                    pass
    except KeeperError:
        return False
    return True


async def _durable(done: asyncio.Future[None]) -> None:
    await done


def _followed_text(followed: Followed) -> str:
    return json.dumps([followed.cluster_id, followed.term, followed.start_id, followed.commit])


def _followed(text: str) -> Followed | None:
    if not text:
        return None
    cluster_id, term, start_id, commit = json.loads(text)
    return Followed(str(cluster_id), int(term), str(start_id), int(commit))


def _grpc(member: Member) -> str:
    """Where a controller is dialled; empty for a member that is none."""
    try:
        tags = member.tags
    except ValueError:
        return ""  # somebody else's meta
    return tags.get("grpc", "") if tags.get("role") == "controller" else ""


def _each_once(configured: tuple[str, ...], found: Mapping[str, str]) -> tuple[str, ...]:
    """Addresses of controllers: those that are configured come first."""
    return tuple(dict.fromkeys((*configured, *found.values())))


def _advertised(config: AgentConfig) -> str:
    """Host under which other nodes reach the stream worker; may wait for a name server."""
    if config.advertise:
        return parse_address(config.advertise).host
    return outward_host(host_port(config.streams, hostless=True)[0], config.peers)


async def _sweep(attempts: Path, known: set[str], trash: Trash) -> None:
    """Throw folders of attempts away that nobody knows any more."""
    for folder in await asyncio.to_thread(_folders, attempts):
        if folder.name not in known:
            try:
                await trash.throw(folder)
            except OSError as error:
                LOG.warning(
                    "a folder that nobody knows cannot be moved away",
                    extra=fields(path=folder, error=error),
                )


def _folders(attempts: Path) -> list[Path]:
    return list(attempts.iterdir()) if attempts.is_dir() else []
