"""The agent of a board: its links to everything outside, and the shell that runs over them.

It carries no stream data and runs no user code, so that a busy job never looks like a dead node.
What must outlive it (jobs, streams) lives in the keeper and the stream worker; what it must know
afterwards lives in its journal.
"""

import asyncio
import contextlib
import hashlib
import logging
import math
import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import shoal
from edge_agent.agent_figures import AgentFigures
from edge_agent.agent_process import AgentProcess
from edge_agent.agent_shell import AgentShell
from edge_agent.attempt_folder import keeper_id
from edge_agent.bundles.prefetch import Prefetch
from edge_agent.config import AgentConfig
from edge_agent.content_cache import ContentCache
from edge_agent.disk_gauge import DiskGauge
from edge_agent.download import Downloader
from edge_agent.environments.apart_room import pythons
from edge_agent.environments.build_planning import BuildPlanning, read_by_builds
from edge_agent.environments.build_rooms import BuildRooms
from edge_agent.environments.cache import EnvironmentCache
from edge_agent.environments.credentials import index_credentials
from edge_agent.environments.installer import Installer
from edge_agent.environments.interpreter import Interpreters
from edge_agent.environments.package_index import installer_environ, pip_files
from edge_agent.environments.package_store import PackageStore
from edge_agent.facts.reader import FactsReader
from edge_agent.file_inputs import FileInputs
from edge_agent.folder_inputs import FolderInputs
from edge_agent.folder_workshop import FolderWorkshop
from edge_agent.found_controllers import found_controllers
from edge_agent.joining import TOKEN_VARIABLE, Joining
from edge_agent.journal import Journal
from edge_agent.keeper.client import end_keeper
from edge_agent.kept_folders import KeepLimits, KeptFolders
from edge_agent.links.agent_links import AgentLinks
from edge_agent.links.keeper import KeeperSocket
from edge_agent.links.session import dial_session
from edge_agent.links.stream_worker import StreamWorkerSocket
from edge_agent.logs import LogShipper
from edge_agent.long_work import LongWork
from edge_agent.node_identity import NodeIdentity, known_identity
from edge_agent.sandbox.control_groups import ControlGroups
from edge_agent.sandbox.job_limits import JobLimits, node_claims
from edge_agent.sandbox.job_users import JobUsers
from edge_agent.sandbox.narrowing import Narrowing
from edge_agent.sandbox.planning import SandboxPlanning
from edge_agent.sandbox.probe import decide, ground_here, try_levels
from edge_agent.sandbox.reached_program import reached_program
from edge_agent.sandbox.user_leavings import UserLeavings
from edge_agent.sdk_copy import SdkCopy
from edge_agent.secrets.secret_folders import SecretFolders
from edge_agent.spare_folders import SpareFolders
from edge_agent.start_outlines import StartOutlines
from edge_agent.state_lock import LOCK_NAME, hold_state
from edge_agent.trash import Trash
from edge_agent.uploads.upload_rate import UploadRate
from edge_agent.uploads.uploader import Uploader
from edge_agent.variables import installer_variables, process_variables
from edge_agent.web_sessions import WebSessions
from edge_agent.workshop_tools import WorkshopTools
from services.membership.endpoint import parse_address
from services.membership.gossip_member import (
    KEYRING_NAME,
    ClusterKeys,
    GossipMember,
    open_member,
)
from services.metrics.opening import open_metrics
from services.metrics.reader_proof import ReaderProof
from services.runtime.address import host_port
from services.runtime.health_file import HealthFile
from services.runtime.log import fields
from services.runtime.outward import on_loopback, outward_host
from services.runtime.process import StartRefusedError
from shoal.handshake_failure import explain_handshake
from shoal.sandbox import NodeSandbox, SandboxLevel
from shoal.tls import ClientTls

LOG = logging.getLogger(__name__)

_LEAVE_SECONDS: Final = 3.0
_SHUTDOWN_SECONDS: Final = 30.0


class Agent:
    """One node's agent; `run` runs it.

    Args:
        config: what the operator set.
        process: what the process gives.
    """

    def __init__(self, config: AgentConfig, process: AgentProcess) -> None:
        self._config = config
        self._process = process
        self._journal = Journal(config.state / "agent.db")

    async def run(self) -> None:
        """Be an agent until cancelled.

        Raises:
            StartRefusedError: the state folder cannot be used, the level of jobs that was asked for cannot be
                had, the journal cannot be read, or no keeper can be had.
        """
        config, process, state = self._config, self._process, self._config.state
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(hold_state(state))
            sandbox = _sandbox(config, process)
            groups = await asyncio.to_thread(ControlGroups.open, _groups_name(state))
            stack.callback(groups.close)
            own_users = SandboxLevel.USER in sandbox.levels
            sandbox = replace(sandbox, enforces=node_claims(groups.enforces, own_users=own_users))
            if groups.refused:
                LOG.info("some claims bind no job by a group", extra=fields(why=groups.refused))
            await stack.enter_async_context(self._journal)
            identity = None if config.insecure else await asyncio.to_thread(known_identity, config)
            if identity is None and not on_loopback(config.streams):
                LOG.warning(
                    "INSECURE: every process on the network may read the streams of this node, and whatever "
                    "answers as its controller runs programs on it; start it without --insecure, with a "
                    "join token",
                    extra=fields(streams=config.streams),
                )
            if identity is not None:
                word = process.environ.get(TOKEN_VARIABLE, "")
                await Joining(config, word, process.rng.random).run(identity)
            work = await stack.enter_async_context(LongWork(process.clock))
            gauge = DiskGauge(
                *(state, state / LOCK_NAME, lambda: self._journal.trouble, process.clock),
                lambda ref: groups.processes(keeper_id(ref)),
            )
            await stack.enter_async_context(gauge)
            web = await stack.enter_async_context(WebSessions.open())
            member = await self._open_member(stack, identity)
            gossip = None if member is None else member.gossip
            tls = ClientTls(lambda: b"" if identity is None else identity.trust.authorities)
            planning = self._planning(sandbox, groups)
            try:
                await asyncio.to_thread(planning.open)
            except OSError as error:
                raise StartRefusedError(f"jobs cannot have users of their own: {error}") from error
            workshop = await self._open_workshop(web, tls, work, gauge, planning)
            keeper = KeeperSocket(
                state / "keeper.sock",
                state / "keeper.log",
                process_variables(process.environ),
                process.version,
            )
            links = AgentLinks(
                controllers=lambda: found_controllers(config.controllers, gossip),
                dial=lambda address: dial_session(
                    address, None if identity is None else identity.current()
                ),
                keeper=keeper,
                stream_worker=StreamWorkerSocket(
                    state / "worker.sock",
                    config.streams,
                    await asyncio.to_thread(_advertised, config),
                    state,
                    process_variables(process.environ),
                    process.version,
                    None if identity is None else identity.folder,
                    config.streams_security,
                    await asyncio.to_thread(_is_free, config.streams),
                ),
                journal=self._journal,
                workshop=workshop,
                disk=gauge,
                logs=LogShipper,
                facts=FactsReader(config.facts_root, state, process.wall),
                sandbox=sandbox,
                cluster=_cluster(identity),
                trust=lambda: None if identity is None else identity.trust,
                identity=identity,
                take_gossip_keys=_no_keys if member is None else member.take_keys,
                explain=lambda details, address: explain_handshake(
                    details,
                    address,
                    None if identity is None else identity.current(),
                    datetime.fromtimestamp(process.wall(), UTC),
                ),
            )
            shell = AgentShell(config, process, links)
            figures = AgentFigures(shell.standing, config.capacity, gossip, process.version)
            metrics = await stack.enter_async_context(
                open_metrics(
                    config.metrics,
                    figures.read,
                    clock=process.clock,
                    proof=_reader_proof(identity),
                )
            )
            if metrics:
                LOG.info("metrics are served", extra=fields(address=metrics))
            async with asyncio.TaskGroup() as group:
                group.create_task(_once_restored(shell, workshop.tools.trash.run))
                group.create_task(_once_restored(shell, workshop.tools.environments.run))
                group.create_task(_once_restored(shell, planning.tidy))
                if member is not None:
                    group.create_task(_once_restored(shell, member.run))
                if config.health_file is not None:
                    health = HealthFile(config.health_file, process.clock)
                    group.create_task(_once_restored(shell, health.run))
                try:
                    await shell.run()
                finally:
                    if member is not None and shell.restored.is_set():
                        await member.gossip.leave(_LEAVE_SECONDS)
                    if config.stop_jobs:
                        await end_keeper(keeper.path, _SHUTDOWN_SECONDS)

    async def _open_member(
        self, stack: contextlib.AsyncExitStack, identity: NodeIdentity | None
    ) -> GossipMember | None:
        config = self._config
        opening = open_member(
            config,
            {"role": "agent"},
            clock=self._process.clock,
            wall=self._process.wall,
            rng=self._process.rng,
            cluster_keys=_cluster_keys(identity),
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

    def _planning(self, node: NodeSandbox, groups: ControlGroups) -> SandboxPlanning:
        config, process = self._config, self._process
        state = Path(os.path.realpath(config.state))
        users = None
        if SandboxLevel.USER in node.levels:
            users = JobUsers(
                *(config.job_users, process.job_registry, state, process.rng.random, process.clock),
                UserLeavings(config.job_users, process.wall),
            )
        search = process.environ.get("PATH", os.defpath)
        hidden = [str(state), process.environ.get("HOME", "")]
        narrowing = Narrowing(
            hidden, node.filters, config.architecture, shutil.which("bwrap", path=search) or ""
        )
        limits = JobLimits(groups, frozenset(config.capacity.devices))
        return SandboxPlanning(state, node, users, narrowing, limits)

    async def _open_workshop(
        self,
        web: WebSessions,
        tls: ClientTls,
        work: LongWork,
        gauge: DiskGauge,
        planning: SandboxPlanning,
    ) -> FolderWorkshop:
        config, process, state = self._config, self._process, self._config.state
        own = await asyncio.to_thread(installer_variables, process.environ, state / "installer")
        own |= await asyncio.to_thread(index_credentials, config.index_credentials)
        downloader = Downloader(web, chance=process.rng.random, tls=tls)
        package = Path(str(shoal.__file__)).parent
        trash = Trash(state / "trash", work, new_id=process.token, chance=process.rng.random)
        bundles = ContentCache(
            state / "bundles", downloader, work, what="bundle", bytes_max=config.bundle_bytes_max
        )
        inputs = ContentCache(
            state / "inputs", downloader, work, what="input", bytes_max=config.input_bytes_max
        )
        most = config.environment_bytes_max
        packages = PackageStore(state / "packages", downloader, work, trash, bytes_max=most // 2)
        variables = installer_environ(
            packages.variables(own), pip_files(process.environ, Path(sys.prefix))
        )
        uv = process.uv
        if planning.users is not None:
            uv = await asyncio.to_thread(
                reached_program, uv, state / "tools", planning.users.users.first
            )
        environments = EnvironmentCache(
            state / "environments",
            state / "attempts",
            Interpreters(uv, process.python, variables),
            Installer(uv, packages),
            BuildRooms(
                state / "builds",
                variables,
                packages,
                planning.users,
                work,
                trash,
                BuildPlanning(
                    planning.narrowing,
                    read_by_builds(
                        (uv, Path(sys.prefix), Path(sys.base_prefix)),
                        variables,
                        pythons(variables),
                    ),
                    planning.limits.groups,
                ),
                process.token,
            ),
            packages,
            work,
            trash,
            bytes_max=most,
            build_id=process.token,
        )
        kept = KeptFolders(
            state / "kept",
            trash,
            limits=KeepLimits(config.keep_seconds, config.keep_bytes_max),
            wall=process.wall,
            measure=gauge.folders,
        )
        await trash.open()
        await kept.open()
        await environments.open()
        tools = WorkshopTools(
            starts=StartOutlines(
                SdkCopy(package, state / "sdk", process.token),
                process.environ,
                planning,
                process.clock,
            ),
            bundles=bundles,
            prefetch=Prefetch(bundles, process.rng.random),
            inputs=FileInputs(inputs, downloader),
            folders=FolderInputs(inputs, downloader),
            environments=environments,
            uploader=Uploader(
                web,
                chance=process.rng.random,
                tls=tls,
                rate=UploadRate(float(config.upload_rate_bytes) or math.inf),
            ),
            work=work,
            trash=trash,
            spares=SpareFolders(state / "spare"),
            kept=kept,
            sandbox=planning,
            secrets=SecretFolders(state),
        )
        return FolderWorkshop(state / "attempts", tools)


async def _once_restored(shell: AgentShell, run: Callable[[], Awaitable[None]]) -> None:
    """Begin only after the agent has taken over what an earlier one left."""
    await shell.restored.wait()
    await run()


def _sandbox(config: AgentConfig, process: AgentProcess) -> NodeSandbox:
    """Find out what this node can do to keep jobs apart.

    Raises:
        StartRefusedError: the level that the operator asked for cannot be had.
    """
    search = process.environ.get("PATH", os.defpath)
    found = try_levels(
        ground_here(config.state, config.job_users.last, config.architecture, search)
    )
    sandbox = decide(config.sandbox, found)
    levels = [level.value for level in SandboxLevel if level in sandbox.levels]
    refused = {level.value: why for level, why in sandbox.refused.items()}
    LOG.info(
        "levels of jobs on this node",
        extra=fields(default=sandbox.default.value, levels=levels, refused=refused or None),
    )
    if found.remark and sandbox.default is not SandboxLevel.NONE:
        LOG.warning("jobs that name no interpreter cannot start", extra=fields(why=found.remark))
    return sandbox


def _groups_name(state: Path) -> str:
    """What the control groups of a state folder are called, by every agent of it."""
    return hashlib.sha256(os.fsencode(os.path.realpath(state))).hexdigest()[:16]


def _no_keys(_keys: Sequence[bytes]) -> None:
    """Take no keys: this agent does not gossip."""


def _cluster(identity: NodeIdentity | None) -> str:
    """Id of the cluster of the node's certificate; empty without one."""
    joined = None if identity is None else identity.current()
    return "" if joined is None else joined.identity.cluster


def _cluster_keys(identity: NodeIdentity | None) -> ClusterKeys | None:
    """What gossip is sealed with where the operator names no keys: the ring that came with the join."""
    joined = None if identity is None else identity.current()
    if identity is None or joined is None:
        return None
    return ClusterKeys(
        identity.folder / KEYRING_NAME,
        (),
        lambda: identity.current() or joined,
        lambda serial: f"{serial:x}" in identity.trust.revoked,
    )


def _reader_proof(identity: NodeIdentity | None) -> ReaderProof | None:
    """What a page of figures proves beyond loopback; None without an identity."""
    keys = _cluster_keys(identity)
    return None if keys is None else ReaderProof(keys.identity, keys.is_revoked)


def _is_free(listen: str) -> bool:
    """Whether nothing listens there yet: neither the stream worker of an earlier agent nor a stranger."""
    host, port = host_port(listen, hostless=True)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError:
        return False
    return True


def _advertised(config: AgentConfig) -> str:
    """Host under which other nodes reach the stream worker; may wait for a name server."""
    if config.advertise:
        return parse_address(config.advertise).host
    return outward_host(host_port(config.streams, hostless=True)[0], config.peers)
