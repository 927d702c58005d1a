"""One session: the stream of one agent, from its Hello to its end."""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio

from control.core.effects import Admitted
from control.core.errors import ControlError, NameTakenError
from control.front.control_plane import ControlPlane
from control.front.log_folder import LogFolder
from control.front.object_key import wrong_key
from control.front.registrar import Registrar, RegistrarError
from control.front.rpc_status import invalid
from control.front.secret_office import SecretOffice
from control.front.sessions.acknowledgements import PATIENCE_SECONDS, Acknowledgements
from control.front.sessions.addresses import Addresses
from control.front.sessions.parts import in_parts
from control.front.sessions.small_artifacts import SmallArtifacts, objects_of
from control.front.sessions.worker_watch import WorkerWatch
from services.archive.artifact_key import LOG_PATHS
from services.archive.key import InvalidKeyError
from services.archive.object_store import ArchiveError, SmallObject
from services.archive.parts import PartsError
from services.runtime.log import CountedLog, fields
from services.runtime.peer import Peer, host_of, peer_of
from services.runtime.rpc import rpc_error
from shoal import limits
from shoal.model import JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.node_facts import NodeFacts
from shoal.protocol_version import (
    SESSION,
    SESSION_SPOKEN,
    LinkEnd,
    NoCommonProtocolError,
    Protocols,
    agreed,
)
from shoal.secret import no_secrets
from shoal.session import messages
from shoal.session.assignment import Assignment
from shoal.session.bundles import BundlesHeld, BundlesWanted
from shoal.session.folder_files import FilesWanted
from shoal.session.log_piece import LogPiece
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.trust import CertificateIssued, CertificateWanted, Trust
from shoal.session.uploads import UploadGrant, UploadsGranted, UploadsWanted
from shoal.v1 import session_service_pb2 as v1
from shoal.wire.attempt import decode_attempt_ref
from shoal.wire.fields import WireError
from shoal.wire.observation import decode_observation
from shoal.wire.session import decode_agent_message, decode_hello, encode_controller_message

LOG = logging.getLogger(__name__)

REQUESTS_WAITING = 64
MESSAGES_WAITING = 256
MESSAGES_TOGETHER = 64
ATTEMPTS_REMEMBERED = 10_000
GRANTS_TOGETHER = 100
LAST_WRITE_SECONDS = 1.0
NAME_CHARACTERS = 200
_ENDS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What agents are told, and how long they may take to introduce themselves; in seconds.

    An agent without a protocol in common with `protocols` asks again after `refused_seconds`.
    """

    controller_id: str
    lease_seconds: float
    heartbeat_seconds: float
    hello_seconds: float = 10.0
    refused_seconds: float = 30.0
    protocols: Protocols = SESSION_SPOKEN


@dataclass(slots=True)
class _Batch:
    """What several requests say, sorted by what is to be done about it."""

    through: int
    observations: list[Observation]
    pieces: list[LogPiece]
    uploads: list[tuple[UploadsWanted, list[UploadGrant]]]
    """With what cannot be granted."""
    files: list[FilesWanted]
    certificate: CertificateWanted | None
    refused: list[messages.Refused]
    waited_for: bool
    """Whether the agent waits for the acknowledgement; of a heartbeat it does not."""
    patient: bool = True
    """Whether it is acknowledged in time with what is said next: it has nothing but observations and heartbeats."""


class SessionServer:
    """The stream of one agent; `run` it once.

    One task reads for as long as the stream lives, one writes, one follows the desired state, and
    this one takes what was read, in batches: it is acknowledged when it is committed.

    Args:
        context: the stream.
        session_id: tells sessions of one node apart.
        plane: records what the agent says, and knows what should run.
        logs: where logs go.
        addresses: presigns.
        small: stores small artifacts that agents bring.
        settings: what agents are told.
        workers: looks after stream workers whose session broke.
        clock: seconds on a monotonic clock.
        registrar: renews certificates, and knows what is trusted; None with --insecure.
        secrets: returns the values of secrets; None for a session that may carry none.
    """

    def __init__(
        self,
        context: Context,
        session_id: str,
        *,
        plane: ControlPlane,
        logs: LogFolder,
        addresses: Addresses,
        small: SmallArtifacts,
        settings: SessionSettings,
        workers: WorkerWatch,
        clock: Callable[[], float],
        registrar: Registrar | None = None,
        secrets: SecretOffice | None = None,
    ) -> None:
        self._context = context
        self._id = session_id
        self._plane = plane
        self._logs = logs
        self._addresses = addresses
        self._small = small
        self._settings = settings
        self._workers = workers
        self._registrar = registrar
        self._secrets = secrets
        # What the agent proves, and after a renewal what it will prove.
        self._peer: Peer | None = None if registrar is None else peer_of(context)
        self._refused = CountedLog(LOG, clock)
        self._node = ""
        self._incoming: asyncio.Queue[v1.ConnectRequest | None] = asyncio.Queue(REQUESTS_WAITING)
        # None only says that there is something new to acknowledge.
        self._outgoing: asyncio.Queue[v1.ControllerMessage | None] = asyncio.Queue(MESSAGES_WAITING)
        self._wanted: asyncio.Queue[tuple[UploadsWanted, list[UploadGrant]]] = asyncio.Queue(
            REQUESTS_WAITING
        )
        self._clock = clock
        self._acknowledgements = Acknowledgements(settings.lease_seconds, clock())
        self._writes = False
        """Whether something is being written."""
        self._ends = False
        """Whether nothing more is to be written."""
        self._answering: asyncio.TimerHandle | None = None
        """What acknowledges observations that nothing else was said after."""
        self._snapshot_said = asyncio.Event()
        # Logs name their attempt without its namespace; this finds it.
        self._attempts: OrderedDict[tuple[str, int], AttemptRef] = OrderedDict()

    async def run(self) -> None:
        """Serve the agent until it ends the stream.

        Raises:
            RpcError: the agent breaks the contract.
            ControlError: the session is over, or could not be recorded.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_all())
                request, hello = await self._hello()
                admitted = await self._open(hello)
                self._workers.opened(self._node, self._id, hello.stream_address)
                await self._say(
                    messages.Welcome(
                        self._settings.controller_id,
                        self._settings.lease_seconds,
                        self._settings.heartbeat_seconds,
                        admitted.following,
                        admitted.quarantine,
                        admitted.adopted,
                        protocols=self._settings.protocols,
                        takes_contents=True,
                    )
                )
                if admitted.quarantine:
                    await self._keep_quarantined(tasks)
                    return
                following = tasks.create_task(self._follow(takes_lanes=hello.takes_lanes))
                await self._snapshot_said.wait()  # nothing else comes before it
                self._plane.facts.opened(self._node, self._id, hello.facts, self._ask_facts)
                writing = tasks.create_task(self._write_to_its_end())
                for one in admitted.fenced:
                    await self._say(one)
                beside = [following, writing, tasks.create_task(self._grant_all())]
                if self._registrar is not None:
                    beside.append(tasks.create_task(self._tell_trust(self._registrar)))
                await self._take(self._sorted([request]))
                await self._process_all()
                for task in beside:
                    task.cancel()
        finally:
            if self._answering is not None:
                self._answering.cancel()
            if self._node:
                LOG.info("session over", extra=fields(node=self._node, session=self._id))
                self._plane.facts.closed(self._node, self._id)
                try:
                    with contextlib.suppress(ControlError):
                        await self._plane.close_session(self._node, self._id)
                finally:  # gRPC cancels the handler of a stream that broke, here too
                    self._workers.closed(self._node, self._id)

    async def _keep_quarantined(self, tasks: asyncio.TaskGroup) -> None:
        """Hear that the agent lives, until it leaves or a person has decided; take nothing of it."""
        writing = tasks.create_task(self._write_to_its_end())
        deciding = tasks.create_task(self._wait_for_decision())
        while (request := await self._incoming.get()) is not None:
            self._acknowledgements.committed(request.sequence, waited_for=True, now=self._clock())
            await self._outgoing.put(None)
        deciding.cancel()
        writing.cancel()

    async def _wait_for_decision(self) -> None:
        async with contextlib.aclosing(self._plane.feeds.follow(self._node, self._id)) as updates:
            async for _ in updates:  # raises once the session is over
                pass

    # ---- reading --------------------------------------------------------------------------------

    async def _read_all(self) -> None:
        expected = 1
        while (request := await self._context.read()) is not grpc.aio.EOF:
            if request.sequence != expected:
                raise invalid(
                    "SEQUENCE",
                    f"message {request.sequence} came where {expected} was expected: dial again",
                    field="sequence",
                )
            expected += 1
            # At once: a lease must not wait for a commit. What renews none is not acknowledged either,
            # or the agent would count on a lease that is over; the follower ends the session.
            if self._node and not self._plane.leader.heartbeat(self._node, self._id):
                return
            try:
                self._incoming.put_nowait(request)
            except asyncio.QueueFull:
                await self._incoming.put(request)
        await self._incoming.put(None)

    async def _hello(self) -> tuple[v1.ConnectRequest, messages.Hello]:
        """Wait for the first message; a deadline around the read itself would end the stream."""
        try:
            async with asyncio.timeout(self._settings.hello_seconds):
                request = await self._incoming.get()
        except TimeoutError:
            raise rpc_error(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "NO_HELLO",
                f"no Hello within {self._settings.hello_seconds:g} s",
            ) from None
        if request is None:
            raise invalid("NO_HELLO", "the stream ended without a Hello")
        if not request.messages or request.messages[0].WhichOneof("message") != "hello":
            raise invalid("NO_HELLO", "the first message has to be Hello", field="messages[0]")
        return request, decode_hello(
            request.messages[0].hello,
            lambda name, error: self._refused.warn(
                "attempt of a hello left out", name=name[:NAME_CHARACTERS], why=error
            ),
        )

    async def _open(self, hello: messages.Hello) -> Admitted:
        try:
            self._agree(hello)
        except NoCommonProtocolError as error:
            await self._send_away(hello, str(error), self._settings.refused_seconds)
            raise rpc_error(grpc.StatusCode.UNIMPLEMENTED, "PROTOCOL", str(error)) from error
        self._remember(observation.ref for observation in hello.attempts)
        attempts = tuple(self._checked(observation) for observation in hello.attempts)
        peer = self._peer
        try:
            admitted = await self._plane.open_session(
                replace(hello, attempts=attempts),
                self._id,
                host_of(self._context.peer()),
                "" if peer is None else f"{peer.serial:x}",
            )
        except NameTakenError as error:
            await self._send_away(hello, str(error), error.retry_seconds)
            raise
        self._node = hello.node
        if admitted.quarantine:
            LOG.warning("node quarantined", extra=fields(node=hello.node, why=admitted.quarantine))
        LOG.info(
            "session open",
            extra=fields(
                node=hello.node,
                session=self._id,
                agent=hello.agent_id,
                version=hello.agent_version,
                attempts=len(hello.attempts),
            ),
        )
        return admitted

    def _agree(self, hello: messages.Hello) -> None:
        """Find that this agent and this controller can work together.

        Raises:
            NoCommonProtocolError: they cannot.
        """
        said = hello.protocols
        agent = LinkEnd(
            f"the agent of node {hello.node}",
            said and replace(said, version=hello.agent_version),
            "upgrade it, its keeper and its jobs go on meanwhile",
        )
        here = LinkEnd(
            "the controller",
            self._settings.protocols,
            "upgrade it before its agents, or put the version before back onto the node",
        )
        agreed(SESSION, agent, here)

    async def _send_away(self, hello: messages.Hello, why: str, retry_seconds: float) -> None:
        """Let an agent keep what it has as it is, and ask again later."""
        LOG.warning("agent quarantined", extra=fields(node=hello.node, why=why))
        welcome = messages.Welcome(
            "",
            0.0,
            0.0,
            quarantine=why,
            retry_seconds=retry_seconds,
            protocols=self._settings.protocols,
        )
        message = encode_controller_message(welcome)
        await self._context.write(v1.ConnectResponse(sequence=1, messages=[message]))

    # ---- what the agent says --------------------------------------------------------------------

    async def _process_all(self) -> None:
        ended = False
        while not ended:
            requests: list[v1.ConnectRequest] = []
            while not requests or (
                len(requests) < MESSAGES_TOGETHER and not self._incoming.empty()
            ):
                request = await self._incoming.get()
                if request is None:
                    ended = True
                    break
                requests.append(request)
            if requests:
                await self._take(self._sorted(requests))

    def _sorted(self, requests: Sequence[v1.ConnectRequest]) -> _Batch:
        batch = _Batch(requests[-1].sequence, [], [], [], [], None, [], waited_for=False)
        for request in requests:
            for index, message in enumerate(request.messages):
                kind = message.WhichOneof("message")
                if kind == "heartbeat":
                    continue  # it was one as it was read
                batch.waited_for = True
                try:
                    if kind == "observed":
                        seen = decode_observation(message.observed)
                        batch.observations.append(self._checked(seen))
                    else:
                        batch.patient = False
                        first = request.sequence == 1 and index == 0
                        self._sort(message, batch, first=first)
                except WireError as error:
                    self._refused.warn("message of an agent refused", node=self._node, why=error)
                    batch.refused.append(
                        messages.Refused(_ref_of(message), "INVALID_FIELD", str(error))
                    )
        return batch

    def _sort(self, message: v1.AgentMessage, batch: _Batch, *, first: bool) -> None:
        if message.WhichOneof("message") == "hello":
            if not first:
                raise WireError("hello", "only the first message introduces the agent")
            return
        problems: list[UploadGrant] = []

        def left_out(path: str, error: WireError) -> None:
            problems.append(self._problem(path, error))

        match decode_agent_message(message, left_out):
            case LogPiece() as piece:
                if (placed := self._placed(piece)) is not None:
                    batch.pieces.append(placed)
            case Progress() as progress:
                self._plane.progress(self._node, self._id, progress)
            case messages.NodeCondition() as condition:
                self._plane.condition(self._node, self._id, condition)
            case BundlesHeld(digests):
                self._plane.bundles(self._node, self._id, digests)
            case NodeFacts() as facts:
                self._plane.facts.take(self._node, self._id, facts)
            case UploadsWanted() as wanted:
                batch.uploads.append((wanted, problems))
            case FilesWanted() as files:
                batch.files.append(files)
            case CertificateWanted() as certificate:
                batch.certificate = certificate
            case Observation() | messages.Hello() | messages.Heartbeat() | None:
                pass  # what was taken before; None is what a newer agent may say

    async def _certify(self, wanted: CertificateWanted) -> None:
        """Renew the certificate of the node, if that is due; what does not go well is asked for again."""
        peer = self._peer
        if self._registrar is None or peer is None or not self._registrar.renewal_is_due(peer):
            return
        try:
            row = await self._registrar.renew(peer, wanted.request)
        except (RegistrarError, ControlError, OSError) as error:
            LOG.warning("a certificate is not renewed", extra=fields(node=self._node, why=error))
            await self._say(messages.Refused(None, "CERTIFICATE", str(error)))
            return
        LOG.info("certificate renewed", extra=fields(node=self._node, serial=row.serial))
        self._peer = Peer(peer.identity, int(row.serial, 16))
        await self._say(CertificateIssued(row.pem))

    async def _tell_trust(self, registrar: Registrar) -> None:
        """Say what the cluster trusts, now and whenever it changes."""
        said: Trust | None = None
        async with contextlib.aclosing(self._plane.trust.follow()) as changes:
            async for _ in changes:
                trust = registrar.trust()
                if trust != said:
                    await self._say(trust)
                said = trust

    def _placed(self, piece: LogPiece) -> LogPiece | None:
        """Put in the namespace, which the message does not say."""
        ref = self._attempts.get((piece.ref.name, piece.ref.epoch))
        # A Hello may name any attempt; only where it was placed its output is known.
        if ref is None or not self._plane.was_placed(self._node, ref):
            self._refused.warn(
                "log of an attempt that is not this node's", node=self._node, name=piece.ref.name
            )
            return None
        return replace(piece, ref=ref)

    async def _take(self, batch: _Batch) -> None:
        """Keep logs, then commit observations: a reader that sees an end finds the last words."""
        if batch.pieces:
            await self._logs.append(batch.pieces)
        fenced: Sequence[messages.Fenced] = ()
        if batch.observations:
            fenced = await self._plane.observe(self._node, self._id, batch.observations)
        self._acknowledgements.committed(
            batch.through, waited_for=batch.waited_for, now=self._clock()
        )
        for refused in batch.refused:
            await self._say(refused)
        for one in fenced:
            await self._say(one)
        for wanted, problems in batch.uploads:
            await self._wanted.put((wanted, problems))
        for files in batch.files:
            await self._grant_files(files)
        if batch.certificate is not None:
            await self._certify(batch.certificate)
        if not self._acknowledgements.due:
            return
        if batch.patient:
            if self._answering is None:
                loop = asyncio.get_running_loop()
                self._answering = loop.call_later(PATIENCE_SECONDS, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        """Acknowledge what is committed, unless something is said anyway."""
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None
        if self._acknowledgements.due and self._outgoing.empty():
            self._outgoing.put_nowait(None)

    def _checked(self, observation: Observation) -> Observation:
        """Let nothing be committed that lies where the attempt may not write: that is a failure.

        One that did not succeed may have artifacts too.
        """
        if observation.state not in _ENDS or not observation.artifacts:
            return observation
        wrong = wrong_key(observation.ref, observation.artifacts)
        if not wrong:
            return observation
        self._refused.warn("artifact refused", name=observation.ref.name, why=wrong)
        reason = Reason(ReasonCode.ARCHIVE, 0, f"{wrong}; nothing was committed")
        return replace(observation, state=JobState.FAILED, reason=reason, artifacts=())

    async def _grant_all(self) -> None:
        """Answer beside the rest: what is stored, or travels in parts, takes the archive, which may be away."""
        while True:
            asked = [await self._wanted.get()]
            while len(asked) < MESSAGES_TOGETHER and not self._wanted.empty():
                asked.append(self._wanted.get_nowait())
            stored = await self._store([wanted for wanted, _ in asked])
            for (wanted, problems), small in zip(asked, stored, strict=True):
                await self._grant(wanted, problems, small)

    async def _store(self, asked: Sequence[UploadsWanted]) -> Sequence[Mapping[str, SmallObject]]:
        """Store what came with each question, and return it by path; what is not stored is granted an address.

        Only an attempt that may ask may write: its keys are no other's.
        """
        found = [
            objects_of(wanted) if wanted.contents and await self._may_ask(wanted) else {}
            for wanted in asked
        ]
        objects = [one for some in found for one in some.values()]
        if not objects:
            return found
        try:
            await self._small.store(objects)
        except (ArchiveError, InvalidKeyError) as error:
            # The agent stores it itself then, for as long as it takes, and says for what it waits.
            self._refused.warn("small artifacts not stored", node=self._node, why=error)
            return [{} for _ in asked]
        return found

    async def _may_ask(self, wanted: UploadsWanted) -> bool:
        return self._plane.is_current(self._node, wanted.ref) or await self._keeps_logs(wanted)

    async def _grant(
        self,
        wanted: UploadsWanted,
        problems: Sequence[UploadGrant],
        stored: Mapping[str, SmallObject],
    ) -> None:
        """Grant what can be, and say why not of the rest: that fails its attempt, not the others.

        Where nothing can be signed, the session ends: the agent dials again and asks again. Of parts,
        for which the archive itself has to answer, the agent is told to ask again.
        """
        ref = wanted.ref
        if not await self._may_ask(wanted):
            why = f"{ref.name} of epoch {ref.epoch} does not run on this node"
            await self._say(messages.Fenced(ref, why))
            return
        grants = [*problems]
        parts = {one.path: one for one in wanted.parts}
        away = ""
        for index, artifact in enumerate(wanted.artifacts):
            if (small := stored.get(artifact.path)) is not None:
                grants.append(UploadGrant(artifact.path, small.key, stored=True))
                continue
            if index % GRANTS_TOGETHER == GRANTS_TOGETHER - 1:
                await asyncio.sleep(0)  # signing takes a while, and other nodes' leases run
            cut = parts.get(artifact.path)
            try:
                if cut is None:
                    grants.append(await self._addresses.grant(ref, artifact))
                elif not away:
                    grants.append(await self._addresses.grant_parts(ref, artifact, cut))
                else:
                    grants.append(UploadGrant(artifact.path, later=away))
            except (InvalidKeyError, PartsError) as error:
                grants.append(self._problem(artifact.path, error))
            except ArchiveError as error:
                if cut is None:
                    raise
                away = str(error)
                grants.append(UploadGrant(artifact.path, later=away))
        await self._say(UploadsGranted(ref, tuple(grants)))

    async def _keeps_logs(self, wanted: UploadsWanted) -> bool:
        """Whether these are the logs of an attempt that ended here and did not succeed."""
        logs = all(one.path in LOG_PATHS for one in wanted.artifacts)
        return logs and await self._plane.may_keep_logs(self._node, wanted.ref)

    async def _grant_files(self, wanted: FilesWanted) -> None:
        """Say where files of a folder input can be fetched; as with artifacts, an archive may be away."""
        assignment = self._plane.assignment(self._node, wanted.ref)
        if assignment is None:
            why = f"{wanted.ref.name} of epoch {wanted.ref.epoch} does not run on this node"
            await self._say(messages.Fenced(wanted.ref, why))
            return
        granted = await self._addresses.grant_files(assignment, wanted)
        if granted.problem:
            self._refused.warn(
                "no addresses for a folder input", name=wanted.ref.name, why=granted.problem
            )
        await self._say(granted)

    def _problem(self, path: str, error: Exception) -> UploadGrant:
        self._refused.warn("artifact refused", node=self._node, why=error)
        return UploadGrant(path, problem=str(error))

    # ---- what the agent is told -----------------------------------------------------------------

    async def _follow(self, *, takes_lanes: bool) -> None:
        desired = self._plane.feeds.follow(self._node, self._id, takes_lanes=takes_lanes)
        async with contextlib.aclosing(desired) as updates:
            async for message in updates:
                match message:
                    case messages.Refused():
                        await self._say(message)
                    case messages.Desired():
                        await self._say_desired(message)
                        self._snapshot_said.set()
                    case BundlesWanted():
                        await self._say(await self._addresses.of_bundles(message))

    async def _say_desired(self, desired: messages.Desired) -> None:
        self._remember(assignment.ref for assignment in desired.assignments)
        if any(map(_needs_addresses, desired.assignments)):
            assignments = [
                await self._addressed(assignment) if _needs_addresses(assignment) else assignment
                for assignment in desired.assignments
            ]
            desired = replace(desired, assignments=tuple(assignments))
        for part in in_parts(desired):
            await self._outgoing.put(part)

    async def _addressed(self, assignment: Assignment) -> Assignment:
        """Fill in what is good for a while, and what is written down nowhere."""
        return replace(
            assignment,
            bundle_url=await self._addresses.bundle_url(assignment.bundle_digest),
            bundle_pieces_url=await self._addresses.bundle_pieces_url(assignment.bundle_digest),
            file_urls=await self._addresses.file_urls(assignment),
            secrets=self._values_of(assignment),
        )

    def _values_of(self, assignment: Assignment) -> Mapping[str, bytes]:
        """The values of the secrets of a job, for an agent that has proved its identity over TLS."""
        if self._secrets is None or self._peer is None:
            return no_secrets()
        return self._secrets.values_of(assignment)

    def _ask_facts(self) -> bool:
        """Ask the agent how its machine stands; False if so much waits for it that it would answer late."""
        try:
            self._outgoing.put_nowait(encode_controller_message(messages.FactsWanted()))
        except asyncio.QueueFull:
            return False
        return True

    async def _say(self, message: messages.FromController) -> None:
        await self._outgoing.put(encode_controller_message(message))

    async def _write_to_its_end(self) -> None:
        """Write until cancelled; what is being written is written to its end nevertheless.

        The status of a stream that is sent beside a write is lost (gRPC: TOO_MANY_OPERATIONS), and
        then the agent waits for it for ever.
        """
        writing = asyncio.ensure_future(self._write_all())
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._ends = True
            if self._writes:
                await asyncio.wait({writing}, timeout=LAST_WRITE_SECONDS)
            if not writing.done():
                writing.cancel()
            elif not writing.cancelled():
                writing.exception()  # the reading task hears of it too
            raise

    async def _write_all(self) -> None:
        sequence = 0
        while not self._ends:
            one = await self._outgoing.get()
            said = [] if one is None else [one]
            size = 0 if one is None else one.ByteSize()
            while size <= limits.BATCH_BYTES_MAX and len(said) < MESSAGES_TOGETHER:
                try:
                    one = self._outgoing.get_nowait()
                except asyncio.QueueEmpty:
                    break
                if one is not None:
                    said.append(one)
                    size += one.ByteSize()
            sequence += 1
            response = v1.ConnectResponse(
                sequence=sequence,
                acknowledged=self._acknowledgements.say(self._clock()),
                messages=said,
            )
            self._writes = True
            await self._context.write(response)
            self._writes = False

    def _remember(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            self._attempts[ref.name, ref.epoch] = ref
        while len(self._attempts) > ATTEMPTS_REMEMBERED:
            self._attempts.popitem(last=False)


def _needs_addresses(assignment: Assignment) -> bool:
    job = assignment.job
    return bool(assignment.bundle_digest or job.files or job.folders or job.secrets)


def _ref_of(message: v1.AgentMessage) -> AttemptRef | None:
    """Which attempt a message is about that cannot be read; None where it does not say that either."""
    with contextlib.suppress(WireError):
        match message.WhichOneof("message"):
            case "observed":
                seen = message.observed
                return decode_attempt_ref(seen, "")
            case "uploads_wanted":
                return decode_attempt_ref(message.uploads_wanted.ref)
            case "files_wanted":
                return decode_attempt_ref(message.files_wanted.ref)
            case _:
                pass
    return None
