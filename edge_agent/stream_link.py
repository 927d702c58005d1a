"""The agent's hold on its stream worker, which the keeper keeps so that it outlives the agent.

Rule: a worker that carried attempts and is gone is told as lost exactly once, before anything can be
attached to the next one, and before the journal names the next one.
Why: what a worker carried is gone with it. If the loss were not told, an attempt that drains would wait for a
worker that has never heard of it, for ever. If the journal named the next worker first, an agent
that dies in between would take that for the one that carries its attempts.
How: `_carrier` is the process that the attempts are on, as `Restored` had it or as it was found
since. Every list of the keeper's, and every end that it tells, is held against it.
Rule: a worker is started when the first attempt with ports is attached, where its address can be told before.
Why: a node without streams does without a third of an agent's memory. A controller has to know the address
before it places such an attempt here, so it is told ahead, and the controller hears anew once the worker
listens, because it looks at what listens there when a session breaks.
Example: agent restarts, finds its worker; the keeper is killed, and the worker with it; the next
keeper knows no worker. Its first list says so, then the ends of the programs are looked at.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import grpc.aio

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.attempts import events
from edge_agent.error_words import words_of
from edge_agent.keeper.client import KeeperError
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper_link import KeeperLink, other_build
from edge_agent.links.journal import AttemptJournal
from edge_agent.links.stream_worker import HELPER, StreamWorkerDoor, StreamWorkerStub
from services.runtime.log import fields
from services.runtime.process import OtherVersionError
from services.runtime.stream_address import with_host
from shoal.backoff import Backoff
from shoal.names import AttemptRef
from shoal.protocol_version import STREAM_WORKER as STREAM_WORKER_PROTOCOLS
from shoal.protocol_version import LinkEnd, NoCommonProtocolError, Protocols, agreed
from shoal.secret import no_secrets
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane
from shoal.session.progress import Progress
from shoal.session.trust import Trust
from shoal.v1 import streams_service_pb2 as v1
from shoal.wire.assignment import encode_assignment
from shoal.wire.attempt import decode_attempt_ref, encode_attempt_ref
from shoal.wire.fields import WireError
from shoal.wire.lane import encode_lane
from shoal.wire.port_hold import decode_port_holds
from shoal.wire.protocols import encode_protocols, said_in
from shoal.wire.state import decode_reason, decode_stream_counters
from shoal.wire.trust import TRUST

encode_trust, _ = TRUST

LOG = logging.getLogger(__name__)

STREAM_WORKER: Final = "stream_worker"
"""Name of the fact that tells one worker's process from the next."""
STREAM_ADDRESS: Final = "stream_address"
"""Name of the fact that says where the last worker listened, so that the next one does too."""

_CALL_SECONDS: Final = 10.0
_READY_SECONDS: Final = 20.0
_TRUST_BACKOFF: Final = Backoff(0.2, 5.0, jitter=0.0)
_PAUSE_SECONDS: Final = 0.2
_DISMISS_SECONDS: Final = 1.0
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)


class StreamsError(Exception):
    """The stream worker refused, or does not answer."""


class StreamsRefusedError(StreamsError):
    """The stream worker answered that it cannot do this: asking again does not help."""


class StreamsGoneError(StreamsError):
    """The stream worker, or the keeper that has the ports, is gone: what it had is lost with it."""


@dataclass(eq=False)
class StreamLink:
    """One stream worker, whichever process it is at the moment.

    Args:
        keeper: keeps the worker's process.
        door: how one is started and reached.
        journal: remembers which process it is and where it listens.
        post: hands an event to the machine that drives attempts.
        say: hands counters to the session.
        trust: returns what the cluster trusts now; None in a cluster without identity.
        agent_version: of the agent, for people.
    """

    keeper: KeeperLink
    door: StreamWorkerDoor
    journal: AttemptJournal
    post: Callable[[events.AttemptsEvent], Awaitable[None]]
    say: Callable[[Progress], Awaitable[None]]
    trust: Callable[[], Trust | None] = lambda: None
    agent_version: str = ""
    _last_address: str = ""
    _stub: StreamWorkerStub | None = None
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _untold: asyncio.Event = field(default_factory=asyncio.Event)
    _told: dict[AttemptRef, Progress] = field(default_factory=dict[AttemptRef, Progress])
    _carrier: str = ""
    _dismissed: str = ""
    made: str | None = None
    """The words with which the worker was started, empty where an earlier keeper does not say; None
    until one was found."""
    address: str = ""
    """Where the worker listens for other nodes, or will; empty until that is known."""
    listening: bool = False
    """Whether a worker has said that it listens there."""

    def __post_init__(self) -> None:
        self.address = self.door.address_ahead
        if not self.address:
            self._wanted.set()

    def recall(self, facts: Mapping[str, str], processes: Sequence[ProcessRecord]) -> bool:
        """Take up what the journal says of the last worker of this node; say whether it still runs."""
        self._last_address = facts.get(STREAM_ADDRESS, "")
        if any(one.attempt == HELPER for one in processes):
            self.address = ""  # it may listen elsewhere
            self._wanted.set()
        known = facts.get(STREAM_WORKER, "")
        self._carrier = known if _runs(known, processes) else ""
        return bool(self._carrier)

    async def wait_ready(self, deadline_seconds: float) -> bool:
        """Wait until the worker answers, if there has to be one; say whether it does."""
        if not self._wanted.is_set():
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_seconds):
                await self._ready.wait()
        return self._ready.is_set()

    async def run(self) -> None:
        """Keep a worker running, listen to it, and tell it of trust, until cancelled.

        Raises:
            OtherVersionError: the worker that is there is of a build that this agent cannot work with.
        """
        async with asyncio.TaskGroup() as tasks:
            if self.trust() is not None:
                tasks.create_task(self._keep_trusting())
            tasks.create_task(self._keep_running())

    async def _keep_running(self) -> None:
        # No deadline: a node may have no streams for months.
        await self._wanted.wait()
        while True:
            try:
                await self._ensure()
                await self._listen()
            except (KeeperError, grpc.aio.AioRpcError, OSError, TimeoutError) as error:
                LOG.info("the stream worker is away", extra=fields(error=words_of(error)))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def ended(self, process: ProcessRecord) -> None:
        """The keeper has seen the end of a worker: told before the ends that follow from it."""
        if process_identity(process) == self._carrier:
            await self._lose()

    async def listed(self, processes: Sequence[ProcessRecord]) -> None:
        """A keeper has said what it keeps, which may be another than before, without the worker."""
        if self._carrier and not _runs(self._carrier, processes):
            await self._lose()

    def let_go(self) -> None:
        """Use a worker no more on which no attempt is: what comes is for the next one, its end no loss."""
        self._dismissed, self._carrier = self._carrier or self._dismissed, ""
        self._ready.clear()
        self._stub = None

    async def dismiss(self) -> None:
        """Let a worker end that was let go.

        Raises:
            KeeperError: the keeper did not take it; it is asked again before the next one is sought.
        """
        await self.keeper.stop(HELPER, _DISMISS_SECONDS)

    async def _lose(self) -> None:
        self._carrier = ""
        await self.post(events.StreamWorkerLost())

    async def attach(self, assignment: Assignment, folder: AttemptFolder) -> None:
        """Let the worker take the ports of an attempt.

        Raises:
            StreamsError: it did not.
        """
        async with self._calling() as stub:
            await stub.Attach(
                v1.AttachRequest(
                    assignment=encode_assignment(replace(assignment, secrets=no_secrets())),
                    spool_path=str(folder.spool),
                    keeper_path=str(self.keeper.path),
                    keeper_id=keeper_id(assignment.ref),
                ),
                timeout=_CALL_SECONDS,
            )

    async def say_again(self) -> None:
        """Hand the latest counters of all attempts to a session that has just begun.

        A stream that stands still has no news, and what an earlier session was told may be lost.
        """
        for progress in tuple(self._told.values()):
            await self.say(progress)

    async def update_lanes(self, ref: AttemptRef, lanes: tuple[Lane, ...]) -> None:
        """Tell the worker where the peers of an attempt are now.

        Raises:
            StreamsError: it did not listen.
        """
        async with self._calling() as stub:
            await stub.UpdateLanes(
                v1.UpdateLanesRequest(
                    ref=encode_attempt_ref(ref), lanes=[encode_lane(lane) for lane in lanes]
                ),
                timeout=_CALL_SECONDS,
            )

    async def say_trust(self) -> None:
        """Have the worker told what the cluster trusts now, and that it may prove something else."""
        self._untold.set()

    async def _keep_trusting(self) -> None:
        """Tell the worker of each change of trust until it has taken it; one that is found is told, too."""
        while True:
            # No deadline: nothing may change for months.
            await self._untold.wait()
            self._untold.clear()
            failures = 0
            # A worker that is yet to come is told when it is found.
            while self._wanted.is_set() and not await self._trust_taken():
                failures += 1
                await asyncio.sleep(_TRUST_BACKOFF.delay_seconds(failures, 0.0))

    async def _trust_taken(self) -> bool:
        try:
            async with self._calling() as stub:
                trust = self.trust()
                if trust is not None:
                    request = v1.UpdateTrustRequest(trust=encode_trust(trust))
                    await stub.UpdateTrust(request, timeout=_CALL_SECONDS)
        except StreamsRefusedError as error:
            LOG.warning(
                "the stream worker refused what the cluster trusts", extra=fields(error=error)
            )
        except StreamsError as error:
            LOG.warning("the stream worker does not listen", extra=fields(error=error))
            return False
        return True

    async def conclude(self, ref: AttemptRef, *, succeeded: bool) -> None:
        """Tell the worker how a program ended.

        Raises:
            StreamsError: it did not listen.
        """
        async with self._calling() as stub:
            await stub.Conclude(
                v1.ConcludeRequest(ref=encode_attempt_ref(ref), succeeded=succeeded),
                timeout=_CALL_SECONDS,
            )

    async def detach(self, ref: AttemptRef) -> None:
        """Let the worker drop an attempt.

        Raises:
            StreamsError: it did not listen.
        """
        self._told.pop(ref, None)
        async with self._calling() as stub:
            await stub.Detach(
                v1.DetachRequest(ref=encode_attempt_ref(ref)),
                timeout=_CALL_SECONDS,
            )

    @contextlib.asynccontextmanager
    async def _calling(self) -> AsyncIterator[StreamWorkerStub]:
        self._wanted.set()
        if not await self.wait_ready(_READY_SECONDS) or self._stub is None:
            raise StreamsError(
                f"the stream worker did not answer for {_READY_SECONDS:g} s: see its log "
                f"{self.door.log_path}"
            )
        try:
            yield self._stub
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise StreamsGoneError(words_of(error)) from error
            refused = error.code() in _REFUSALS
            raise (StreamsRefusedError if refused else StreamsError)(words_of(error)) from error

    async def _ensure(self) -> None:
        """Start a worker if none runs."""
        client = await self.keeper.client()
        processes = await client.list()
        known = [record for record in processes if record.attempt == HELPER]
        if not any(record.running for record in known):
            if known:
                LOG.warning("the stream worker has ended", extra=fields(record=known[0]))
                await client.forget(HELPER)
            await client.spawn(self.door.prepare(self._last_address))
            processes = await client.list()
        await self.listed(processes)
        worker = next(one for one in processes if one.attempt == HELPER)
        found = process_identity(worker)
        if found == self._dismissed:
            await client.stop(HELPER, _DISMISS_SECONDS)
            raise TimeoutError("the stream worker before is about to end")
        self.made = worker.made
        if found != self._carrier:
            self._carrier = found
            await self.post(events.StreamWorkerFound(found))

    async def _listen(self) -> None:
        async with self.door.connect() as stub:
            said = STREAM_WORKER_PROTOCOLS.said_by(self.agent_version)
            watch = stub.WatchAttempts(
                v1.WatchAttemptsRequest(protocols=encode_protocols(said)), wait_for_ready=True
            )
            self._stub = stub
            self._told.clear()  # it begins with everything
            try:
                # Only the first answer has a deadline, since missing it ends the call.
                async with asyncio.timeout(_READY_SECONDS):
                    response = await watch.read()
                if response is not cast("Any", grpc.aio.EOF):
                    self._agree(response, said)
                while response is not cast("Any", grpc.aio.EOF):
                    await self._listens_at(response.stream_address)
                    if self._stub is stub:  # else it was dismissed
                        await self._found()
                    for attempt in response.attempts:
                        await self._heard(attempt)
                    response = await watch.read()
            finally:
                self._ready.clear()
                self._stub = None
                watch.cancel()

    def _agree(self, response: v1.WatchAttemptsResponse, ours: Protocols) -> None:
        """Find that this agent and the worker can work together.

        Raises:
            OtherVersionError: they cannot; what streams there goes on.
        """
        remedy = other_build("stream worker")
        try:
            worker = LinkEnd("the stream worker of this node", said_in(response), remedy)
            agreed(STREAM_WORKER_PROTOCOLS, LinkEnd("this agent", ours, remedy), worker)
        except (NoCommonProtocolError, WireError) as error:
            raise OtherVersionError(str(error)) from error

    async def _found(self) -> None:
        if not self._ready.is_set():
            self._ready.set()
            await self.say_trust()

    async def _listens_at(self, address: str) -> None:
        if address and self.door.advertise:
            # The worker may be older than the address that this machine has now.
            address = with_host(address, self.door.advertise)
        if address:
            self.address = address
            self.listening = True
        if address and address != self._last_address:
            self._last_address = address
            await self.journal.note(STREAM_ADDRESS, address)

    async def _heard(self, message: v1.AttemptStreams) -> None:
        try:
            ref = decode_attempt_ref(message.ref)
            holds = decode_port_holds(message.holds, "holds")
            counters = tuple(decode_stream_counters(stream) for stream in message.streams)
            if message.HasField("failure"):
                await self.post(events.StreamsBroken(ref, decode_reason(message.failure)))
        except WireError as error:
            LOG.warning("the stream worker said something odd", extra=fields(error=error))
            return
        self._told[ref] = progress = Progress(ref, counters, message.progress)
        await self.say(progress)
        if holds:
            await self.post(events.StreamsHeld(ref, holds))
        if message.closed:
            await self.post(events.StreamsClosed(ref))
        if message.drained:
            ended = tuple(one.port for one in counters if one.ended and not one.output)
            await self.post(events.StreamsDrained(ref, ended))


def _runs(identity: str, processes: Sequence[ProcessRecord]) -> bool:
    return any(
        one.attempt == HELPER and one.running and process_identity(one) == identity
        for one in processes
    )


def process_identity(record: ProcessRecord) -> str:
    """What tells one process of the keeper from a later one of the same name."""
    return f"{record.pid}@{record.start_time}"
