"""A controller: store, archive, control plane, API, gossip and outbox in one process."""

import asyncio
import contextlib
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from control.config import ControllerConfig
from control.core.errors import (
    StoreFailedError,
    StoreFullError,
    StoreVersionError,
    TermOverError,
)
from control.front.access.interceptor import AccessInterceptor
from control.front.access.quotas import CallerLimits, Quotas
from control.front.api.archive_service import ArchiveService
from control.front.api.history_service import HistoryService
from control.front.api.identity_service import IdentityService
from control.front.api.keys_service import KeysService
from control.front.api.lane_relay import LaneRelay
from control.front.api.node_streams import NodeStreams
from control.front.api.nodes_service import NodesService
from control.front.api.overview_service import OverviewService
from control.front.api.pipelines_service import PipelinesService
from control.front.api.records_service import RecordsService
from control.front.api.secrets_service import SecretsService
from control.front.api.server import ApiServer
from control.front.api.specs_service import SpecsService
from control.front.api.stored_pipelines_service import StoredPipelinesService
from control.front.bundles.known_pieces import KnownPieces
from control.front.bundles.piece_uploads import PieceUploads
from control.front.bundles.sent_pieces import SentPieces
from control.front.control_plane import ControlPlane
from control.front.controller_figures import ControllerFigures
from control.front.folder_listings import FolderListings
from control.front.history import History
from control.front.lane_tickets import LaneTickets
from control.front.log_folder import LogFolder
from control.front.members import GossipMembers
from control.front.newcomers import Newcomers
from control.front.registrar import Registrar
from control.front.ring_renewal import RingRenewal
from control.front.secret_office import INSECURE, SecretOffice
from control.front.secret_vault import SecretVault, VaultError
from control.front.sessions.addresses import Addresses
from control.front.sessions.service import SessionService
from control.front.sessions.session_server import SessionServer, SessionSettings
from control.front.sessions.small_artifacts import SmallArtifacts
from control.front.sessions.worker_watch import WorkerWatch, listens
from control.front.source_reading import SourceReader
from control.front.source_rule import SourceRule
from control.leader.garbage import DAY_SECONDS, GarbageRules
from control.leader.garbage_collector import GarbageCollector
from control.leader.plane_config import PlaneConfig
from control.leader.publishing import Publishing
from control.leader.span_export import SpanExport
from control.store.sqlite import SqliteStore
from services.archive.object_store import ArchiveError, ObjectStore
from services.archive.opening import (
    EndpointSettings,
    OpenArchive,
    S3Address,
    open_copies,
    open_store,
)
from services.archive.s3_server import S3Server
from services.archive.source import S3Sources
from services.identity.authority import AuthorityError
from services.identity.cluster_identity import ClusterIdentity
from services.identity.issuers import Issuers
from services.membership.endpoint import parse_address
from services.membership.gossip_member import (
    KEYRING_NAME,
    ClusterKeys,
    GossipMember,
    open_member,
)
from services.membership.shell import GossipShell
from services.metrics.opening import open_metrics
from services.metrics.reader_proof import ReaderProof
from services.runtime.address import host_port, joined
from services.runtime.health_file import HealthFile
from services.runtime.log import CountedLog, fields
from services.runtime.outward import outward_host
from services.runtime.process import OtherVersionError, StartRefusedError, SupersededError
from services.runtime.state_folder import prepare_state_folder
from services.traces.opening import TraceSender, open_collector
from shoal.affix import beside
from shoal.credentials import Credentials
from shoal.names import PipelineRef
from shoal.protocol_version import SESSION
from shoal.version import VERSION
from shoal.wire.trust import KEYS_MAX

LOG = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 0.5
LEAVE_SECONDS = 1.0
LOG_CLEANING_SECONDS = 3600.0
RENEWAL_SECONDS = 3600.0
DISK_SECONDS = 1.0
DISK_RESERVE_BYTES = 64 << 20
"""Below so much free room, or a twentieth of a smaller disk, people may ask for nothing new."""

STORE_NAME = "controller.db"
"""File of the store in the state folder."""
PIECES_NAME = "pieces.db"
"""File in the state folder that remembers which pieces of bundles the archive has."""
SENT_NAME = "sent"
"""Folder in the state folder of pieces of bundles that are not whole yet."""
HISTORY_NAME = "history"
"""File in the state folder of the series of a week."""
VAULT_NAME = "secrets.keys"
"""File in the state folder of the keys that secrets are sealed under."""
IDENTITY_NAME = "identity"
"""Folder in the state folder of what the cluster is known by."""
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class ControllerProcess:
    """What a controller takes from the world around it.

    Attributes:
        clock: seconds on a monotonic clock.
        boottime: seconds since the machine started, as /proc/uptime has them.
        wall: seconds since 1970.
        rng: chance for backoffs and gossip.
        token: a random string of so many hex digits.
    """

    clock: Callable[[], float]
    boottime: Callable[[], float]
    wall: Callable[[], float]
    rng: Random
    token: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class ControllerAddresses:
    """Where a controller listens, each `host:port`; empty for what it does not serve."""

    grpc: str
    gossip: str
    objects: str
    archive: str
    serf_rpc: str = ""
    members_http: str = ""
    newcomers: str = ""
    metrics: str = ""

    def as_json(self) -> Mapping[str, str]:
        """The addresses for the ready file."""
        return asdict(self)


class Controller:
    """Everything that a controller is, for as long as `run` runs.

    Args:
        config: what the operator set.
        process: the world around it.
        ready: is told the addresses once they are served.
    """

    def __init__(
        self,
        config: ControllerConfig,
        process: ControllerProcess,
        ready: Callable[[ControllerAddresses], None],
    ) -> None:
        self._config = config
        self._process = process
        self._ready = ready
        self._identity: ClusterIdentity | None = None

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            StartRefusedError: an address cannot be had, or the store or the archive not opened.
            SupersededError: another controller has opened the store; callers were let go.
        """
        config, process = self._config, self._process
        async with contextlib.AsyncExitStack() as stack:
            await asyncio.to_thread(prepare_state_folder, config.state, STORE_NAME)
            try:
                store = await stack.enter_async_context(SqliteStore(config.state / STORE_NAME))
                archive = await stack.enter_async_context(
                    self._open_archive(await asyncio.to_thread(self._public_host, config.objects))
                )
                results = await stack.enter_async_context(self._open_results(archive))
                sources = await stack.enter_async_context(
                    S3Sources(self._source_server(), self._reached_source_server())
                )
                vault = await asyncio.to_thread(self._open_vault)
                plane = await stack.enter_async_context(self._plane(store, vault))
                identity = self._identity = await asyncio.to_thread(
                    self._open_identity, plane.cluster_id()
                )
                if identity is not None:
                    plane.feeds.tickets = LaneTickets(identity.signer, identity.cluster)
                streams = NodeStreams(identity)
                access = None if identity is None else self._access(plane, identity)
                server = ApiServer(config.grpc, self._proof, access)
                stack.push_async_callback(server.stop, 0)
                api_host = await asyncio.to_thread(self._public_host, server.address)
                api = joined(api_host, host_port(server.address)[1])
                member = await stack.enter_async_context(
                    open_member(
                        config,
                        {"role": "controller", "grpc": api},
                        clock=process.clock,
                        wall=process.wall,
                        rng=process.rng,
                        cluster_keys=self._cluster_keys(plane, identity),
                    )
                )
            except StoreVersionError as error:
                raise OtherVersionError(f"the controller cannot start: {error}") from error
            except (
                OSError,
                StoreFailedError,
                ArchiveError,
                AuthorityError,
                VaultError,
            ) as error:
                raise StartRefusedError(f"the controller cannot start: {error}") from error
            registrar = self._registrar(plane, identity, member)
            secrets = SecretOffice(
                plane,
                vault,
                wall=self._now,
                log=CountedLog(LOG, process.clock),
                insecure=config.insecure,
            )
            logs = LogFolder(config.state / "logs", clock=process.clock)
            publishing = self._publishing(store, archive, plane, results)
            garbage = self._garbage(store, archive)
            uploads = await stack.enter_async_context(self._uploads(archive))
            gossip = None if member is None else member.gossip
            spans = await stack.enter_async_context(self._span_export(store, plane))
            members = GossipMembers(gossip, clock=process.clock, wall=self._now)
            figures = self._figures(store, plane, publishing, access, gossip, spans)
            history = History(
                config.state / HISTORY_NAME, figures.read, wall=process.wall, clock=process.clock
            )
            rule = self._source_rule()
            listings = FolderListings(archive.store, sources, plane.shown, garbage.sparing)
            reader = SourceReader(rule, garbage.has, plane.lacks_secret, process.clock)
            stack.callback(reader.close)
            workers = WorkerWatch(
                plane.stream_worker_gone,
                patience_seconds=config.lease_seconds,
                clock=process.clock,
                listens=listens,
            )
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(plane.run())
                    if access is not None:
                        tasks.create_task(access.run(plane.trust.follow()))
                    tasks.create_task(workers.run())
                    tasks.create_task(publishing.run())
                    tasks.create_task(archive.serve())
                    tasks.create_task(_clean_logs(logs, plane))
                    tasks.create_task(uploads.run())
                    tasks.create_task(garbage.run())
                    tasks.create_task(history.run())
                    if spans is not None:
                        tasks.create_task(spans.run())
                    tasks.create_task(_watch_disk(config.state, plane))
                    if member is not None:
                        tasks.create_task(member.run())
                        tasks.create_task(members.tell(plane))
                    pipelines = PipelinesService(
                        plane,
                        archive.store,
                        logs,
                        publishing,
                        rule,
                        uploads,
                        listings,
                        garbage,
                        wall=process.wall,
                        url_expires_seconds=config.url_expires_seconds,
                    )
                    await server.start(
                        pipelines,
                        NodesService(plane, members),
                        KeysService(gossip, self._ring_renewal(member)),
                        RecordsService(plane, streams),
                        LaneRelay(plane, streams),
                        self._session_service(
                            plane, archive, sources, logs, workers, registrar, secrets
                        ),
                        IdentityService(plane.cluster_id, registrar),
                        ArchiveService(garbage),
                        SecretsService(secrets),
                        HistoryService(history),
                        OverviewService(
                            plane, members, pipelines.pictures, pipelines.light_pictures
                        ),
                        SpecsService(plane, reader, rule, listings),
                        StoredPipelinesService(plane, reader, rule, listings),
                    )
                    newcomers = ""
                    if registrar is not None:
                        await registrar.keep_operator()
                        tasks.create_task(_renew(registrar))
                        newcomers = await self._serve_newcomers(stack, registrar, tasks)
                    metrics = await stack.enter_async_context(self._serve_metrics(figures, plane))
                    self._announce(server, archive, member, newcomers, metrics)
                    if config.health_file is not None:
                        tasks.create_task(HealthFile(config.health_file, process.boottime).run())
                    try:
                        await (
                            asyncio.Event().wait()
                        )  # until the process is stopped, or a task fails
                    finally:
                        await server.stop(STOP_GRACE_SECONDS)
                        if gossip is not None:
                            await gossip.leave(LEAVE_SECONDS)
            except* TermOverError as over:
                raise SupersededError(f"the controller ends: {_first(over)}") from None

    def _open_archive(
        self, public_host: str
    ) -> contextlib.AbstractAsyncContextManager[OpenArchive]:
        config, process = self._config, self._process
        host, port = host_port(config.objects)
        settings = EndpointSettings(
            host,
            port,
            _secret(config.state / "objects.key", process.token),
            public_host,
            self._proof,
            config.objects_url,
        )
        return open_store(
            config.archive_url,
            settings,
            wall=process.wall,
            clock=process.clock,
            new_id=lambda: process.token(16),
        )

    def _open_identity(self, cluster: str) -> ClusterIdentity | None:
        """Open what the cluster is known by; None with --insecure."""
        config = self._config
        if config.insecure:
            return None
        served = (config.grpc, config.objects, config.members_http, config.metrics)
        hosts = {self._public_host(address) for address in served if address}
        if named := urlsplit(config.objects_url).hostname:
            hosts.add(named)
        folder = config.state / IDENTITY_NAME
        return ClusterIdentity(
            folder, cluster, config.name, self._now, config.authority, hosts=sorted(hosts)
        )

    @property
    def _proof(self) -> Callable[[], Credentials] | None:
        """Returns what this controller proves, once its identity is open; None with --insecure."""
        return None if self._config.insecure else self._credentials

    def _credentials(self) -> Credentials:
        if self._identity is None:
            raise RuntimeError("the identity of this controller is not open yet")
        return self._identity.credentials

    def _ring_renewal(self, member: GossipMember | None) -> RingRenewal | None:
        """How the key of gossip is rotated over sessions; None with --insecure."""
        if member is None or self._config.insecure:
            return None
        return RingRenewal(member, lambda: bytes.fromhex(self._process.token(64)))

    def _cluster_keys(
        self, plane: ControlPlane, identity: ClusterIdentity | None
    ) -> ClusterKeys | None:
        """What gossip is sealed with where the operator names no keys; None with --insecure."""
        if identity is None:
            return None
        keyring = self._config.state / IDENTITY_NAME / KEYRING_NAME
        return ClusterKeys(keyring, (identity.gossip_key,), self._credentials, plane.revoked)

    def _access(self, plane: ControlPlane, identity: ClusterIdentity) -> AccessInterceptor:
        config, clock = self._config, self._process.clock
        limits = CallerLimits(
            config.caller_calls,
            config.caller_watches,
            config.caller_spec_bytes,
            config.caller_bundle_bytes,
        )
        return AccessInterceptor(
            identity.cluster,
            plane.revoked,
            Issuers(lambda: identity.authorities).signed,
            Quotas(limits, clock),
            plane,
            clock,
        )

    def _registrar(
        self, plane: ControlPlane, identity: ClusterIdentity | None, member: GossipMember | None
    ) -> Registrar | None:
        if identity is None:
            return None
        if member is not None:
            member.on_keys = plane.trust.say
        return Registrar(
            plane,
            identity,
            gossip_keys=lambda: () if member is None else member.keys[:KEYS_MAX],
            token=self._process.token,
            wall=self._now,
        )

    async def _serve_newcomers(
        self, stack: contextlib.AsyncExitStack, registrar: Registrar, tasks: asyncio.TaskGroup
    ) -> str:
        """Let newcomers join; returns where, or an empty string.

        Raises:
            StartRefusedError: the address cannot be had.
        """
        config, proof = self._config, self._proof
        if not config.newcomers or proof is None:
            return ""
        newcomers = Newcomers(config.newcomers, proof, self._process.clock)
        try:
            return await stack.enter_async_context(newcomers.serve(registrar, tasks))
        except OSError as error:
            raise StartRefusedError(
                f"newcomers cannot join at {config.newcomers}: {error.strerror or error}; choose another "
                'address for --newcomers, or "off"'
            ) from error

    def _figures(
        self,
        store: SqliteStore,
        plane: ControlPlane,
        publishing: Publishing,
        access: AccessInterceptor | None,
        gossip: GossipShell | None,
        spans: SpanExport | None,
    ) -> ControllerFigures:
        config, process = self._config, self._process
        return ControllerFigures(
            plane,
            store,
            lambda: publishing.connected,
            access,
            gossip,
            spans,
            state=config.state,
            store=config.state / STORE_NAME,
            clock=process.clock,
            wall=self._now,
            version=VERSION,
        )

    @contextlib.asynccontextmanager
    async def _span_export(
        self, store: SqliteStore, plane: ControlPlane
    ) -> AsyncIterator[SpanExport | None]:
        """Open what sends spans, if the operator wants it.

        Raises:
            StartRefusedError: what it takes is not installed.
        """
        config = self._config
        sender = TraceSender(plane.cluster_id(), config.name, VERSION)
        async with open_collector(config.traces, sender) as taker:
            if taker is None:
                yield None
                return
            yield SpanExport(store, plane.leader.spans_wait, taker, chance=self._process.rng.random)

    def _serve_metrics(
        self, figures: ControllerFigures, plane: ControlPlane
    ) -> contextlib.AbstractAsyncContextManager[str]:
        config, process, proof = self._config, self._process, self._proof
        return open_metrics(
            config.metrics,
            figures.read,
            clock=process.clock,
            proof=None if proof is None else ReaderProof(proof, plane.revoked),
        )

    def _source_server(self) -> S3Server:
        """Where `s3://` inputs are: what was configured, else where the archive is."""
        if self._config.sources is not None:
            return self._config.sources
        address = self._config.archive_address
        return address.server if isinstance(address, S3Address) else S3Server()

    def _reached_source_server(self) -> S3Server:
        """Where others reach that server: the archive's is where `--objects-url` says."""
        server, address = self._source_server(), self._config.archive_address
        if isinstance(address, S3Address) and address.server == server:
            return replace(server, endpoint=self._config.objects_url or server.endpoint)
        return server

    def _source_rule(self) -> SourceRule:
        """What may be read of `s3://` inputs: of the archive's server its own bucket is known."""
        buckets = frozenset(self._config.source_buckets)
        address = self._config.archive_address
        if isinstance(address, S3Address) and address.server == self._source_server():
            return SourceRule(buckets, address.bucket, address.prefix)
        return SourceRule(buckets)

    def _open_vault(self) -> SecretVault:
        """Open the keys of secrets.

        Raises:
            VaultError: their file cannot be used.
        """

        def random(count: int) -> bytes:
            return bytes.fromhex(self._process.token(2 * count))

        return SecretVault(self._config.state / VAULT_NAME, random)

    def _plane(self, store: SqliteStore, vault: SecretVault) -> ControlPlane:
        return ControlPlane(
            store=store,
            config=PlaneConfig(
                lease_seconds=self._config.lease_seconds,
                heartbeat_seconds=self._config.heartbeat_seconds,
                unplaced_seconds=self._config.unplaced_seconds,
                still_seconds=self._config.still_seconds,
                caller_pipelines_max=self._config.caller_pipelines,
                dead_letters_max=self._config.dead_letters,
                dead_letter_seconds=self._config.dead_letter_days * 86_400,
                secret_keys=vault.ids,
                secrets_refused=INSECURE if self._config.insecure else "",
                traces=bool(self._config.traces),
                traces_share=self._config.traces_share,
            ),
            clock=self._process.clock,
            wall=self._now,
            ids=self._process.token,
        )

    def _publishing(
        self,
        store: SqliteStore,
        archive: OpenArchive,
        plane: ControlPlane,
        results: ObjectStore,
    ) -> Publishing:
        config = self._config
        return Publishing(
            store,
            archive.store,
            plane.outbox_grown,
            plane.objects,
            broker=config.broker_address,
            client_id=f"shoal-{config.name}",
            clock=self._process.clock,
            wall=self._now,
            chance=self._process.rng.random,
            results=results,
            spans_wait=plane.leader.spans_wait if config.traces else None,
        )

    def _garbage(self, store: SqliteStore, archive: OpenArchive) -> GarbageCollector:
        config = self._config
        results = config.keep_results_days
        rules = GarbageRules(
            attempts=config.keep_attempts_days * DAY_SECONDS,
            bundles=config.keep_bundles_days * DAY_SECONDS,
            results=None if results is None else results * DAY_SECONDS,
        )
        return GarbageCollector(store, archive.store, rules, wall=self._process.wall)

    @contextlib.asynccontextmanager
    async def _open_results(self, archive: OpenArchive) -> AsyncIterator[ObjectStore]:
        """Open where results are copied for pipelines that ask for it."""
        config, process = self._config, self._process
        if not config.legacy_results:
            yield archive.store
            return
        secret = _secret(config.state / "objects.key", process.token)
        async with open_copies(
            config.legacy_results, secret, wall=process.wall, new_id=lambda: process.token(16)
        ) as store:
            yield store

    @contextlib.asynccontextmanager
    async def _uploads(self, archive: OpenArchive) -> AsyncIterator[PieceUploads]:
        """Open what takes bundles in pieces."""
        state, process = self._config.state, self._process
        known = KnownPieces(state / PIECES_NAME)
        sent = SentPieces(state / SENT_NAME, process.wall, lambda: process.token(16))
        try:
            yield PieceUploads(archive.store, known, sent)
        finally:
            await asyncio.to_thread(known.close)

    def _session_service(
        self,
        plane: ControlPlane,
        archive: OpenArchive,
        sources: S3Sources,
        logs: LogFolder,
        workers: WorkerWatch,
        registrar: Registrar | None,
        secrets: SecretOffice,
    ) -> SessionService:
        config, process = self._config, self._process
        addresses = Addresses(
            archive.store,
            sources,
            self._source_rule(),
            expires_seconds=config.url_expires_seconds,
        )
        small = SmallArtifacts(archive.store, process.clock)
        settings = SessionSettings(
            controller_id=f"{config.name}-{process.token(8)}",
            lease_seconds=config.lease_seconds,
            heartbeat_seconds=config.heartbeat_seconds,
            protocols=SESSION.said_by(VERSION),
        )
        return SessionService(
            lambda context: SessionServer(
                context,
                process.token(16),
                plane=plane,
                logs=logs,
                addresses=addresses,
                small=small,
                settings=settings,
                workers=workers,
                registrar=registrar,
                secrets=secrets,
                clock=process.clock,
            )
        )

    def _announce(
        self,
        server: ApiServer,
        archive: OpenArchive,
        member: GossipMember | None,
        newcomers: str,
        metrics: str,
    ) -> None:
        found = ControllerAddresses(
            grpc=server.address,
            gossip=joined(*member.gossip.address) if member is not None else "",
            objects=archive.endpoint,
            archive=self._config.archive_url.partition("?")[0],
            serf_rpc=member.serf_rpc if member is not None else "",
            members_http=member.members_http if member is not None else "",
            newcomers=newcomers,
            metrics=metrics,
        )
        LOG.info("controller ready", extra=fields(**found.as_json()))
        if exposed := self._config.exposed:
            LOG.warning(
                "INSECURE: every process on the network may run programs on all nodes and read all that they "
                "send; start controller and agents without --insecure, or listen on 127.0.0.1",
                extra=fields(options=exposed),
            )
        if unreachable := self._config.unreachable:
            LOG.warning(
                "other machines cannot reach all of this controller, so their jobs wait: leave these options out, "
                "or give them an address of the network",
                extra=fields(options=unreachable, grpc=self._config.grpc),
            )
        self._ready(found)

    def _public_host(self, address: str) -> str:
        """Return the host under which others reach what is bound; may wait for a name server."""
        if self._config.advertise:
            return parse_address(self._config.advertise).host
        return outward_host(host_port(address)[0], self._config.peers)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._process.wall(), UTC)


def _first(group: BaseExceptionGroup[TermOverError]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


async def _watch_disk(state: Path, plane: ControlPlane) -> None:
    """Let people ask for nothing new while the disk of the store is short of room."""
    why: StoreFailedError | None = None
    while True:
        why = await asyncio.to_thread(_short_of_room, state, was_short=why is not None)
        plane.leader.refuse_new(why)
        await asyncio.sleep(DISK_SECONDS)


def _short_of_room(state: Path, *, was_short: bool) -> StoreFailedError | None:
    """Say why the store has no room to grow; a disk that was short has to have a quarter more."""
    try:
        disk = os.statvfs(state)
    except OSError as error:
        return StoreFailedError(
            f"the state folder {state} cannot be looked at: {error}; bring it back"
        )
    if disk.f_flag & os.ST_RDONLY:
        return StoreFailedError(f"the disk of {state} is read-only: see why, and mount it writable")
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    mark = min(DISK_RESERVE_BYTES, total // 20)
    if was_short:
        mark += mark // 4
    if free >= mark:
        return None
    return StoreFullError(
        f"the disk of the controller is short of room: {free} of {total} bytes are free in {state}, "
        f"and requests are taken from {mark} on; make room there, and ask again: what runs goes on"
    )


async def _renew(registrar: Registrar) -> None:
    """Renew what the controller itself proves when two thirds of its time are over."""
    while True:
        try:
            if await registrar.renew_own():
                LOG.info("the certificate of the controller was renewed")
            await registrar.keep_operator()
        except OSError as error:
            LOG.warning("the certificate of the controller is not renewed", extra=fields(why=error))
        await asyncio.sleep(RENEWAL_SECONDS)


async def _clean_logs(logs: LogFolder, plane: ControlPlane) -> None:
    """Remove the logs of pipelines that are not remembered any more, now and every hour."""

    def known(ref: PipelineRef) -> bool:
        machine = plane.leader.machine
        return machine is None or machine.memory.remembers(ref)

    while True:
        try:
            if count := await logs.keep_only(known):
                LOG.info("logs of forgotten pipelines removed", extra=fields(pipelines=count))
        except OSError as error:
            LOG.warning("logs not cleaned", extra=fields(why=error))
        await asyncio.sleep(LOG_CLEANING_SECONDS)


def _secret(path: Path, token: Callable[[int], str]) -> bytes:
    """Return the key of presigned addresses; made once, so that they outlive a restart."""
    try:
        if path.stat().st_size >= _SECRET_BYTES:
            return path.read_bytes()
    except FileNotFoundError:
        pass
    secret = token(2 * _SECRET_BYTES).encode()
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return secret


def write_ready_file(path: Path, addresses: ControllerAddresses) -> None:
    """Write the addresses as JSON, all at once: a reader that finds the file finds it whole."""
    temporary = beside(path, ".new")
    temporary.write_text(json.dumps(addresses.as_json()) + "\n", encoding="utf-8")
    temporary.replace(path)
