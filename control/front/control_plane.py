"""The control plane as the API and the sessions see it: the leader, and what shows its commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, Self

from control.core import admission, events
from control.core.answers import Page, Refusal, Submission, SubmitResult
from control.core.call_note import CallNote
from control.core.effects import (
    Admitted,
    AnswerValue,
    Issued,
    Revoked,
    Taken,
    VersionStored,
)
from control.core.errors import ControlError, PageTokenError, UnknownSequenceError
from control.core.event_query import EventQuery
from control.core.identities import Identities
from control.core.job_secrets import JobSecrets
from control.core.rows import (
    CertificateRow,
    Holder,
    SecretRow,
    StoredVersionRow,
    TokenRow,
)
from control.core.stored_pipelines import StoredPipelines
from control.front.access.refused_calls import RefusedCalls
from control.front.desired_feeds import DesiredFeeds
from control.front.event_feed import EventFeed, EventsBegin
from control.front.known_facts import KnownFacts
from control.front.read_model import PAGE_SIZE, PipelineShown, ReadModel, token
from control.front.trust_feed import TrustFeed
from control.front.watch import Changes, each
from control.leader.leader import Leader
from control.leader.plane_config import PlaneConfig
from control.store.store import Store
from shoal.limits import BATCH_BYTES_MAX
from shoal.model import JobState, MemberState, Reason
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.secret import SecretUse
from shoal.session.assignment import Assignment
from shoal.session.messages import Fenced, Hello, NodeCondition
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.view import Event, NodeVerdict, NodeView, PipelineView, Unlisted

_NEWEST_FIRST: Final = "n"
"""How the token of a page begins that goes on to older events; what its place is in the other direction differs."""

_READINGS_OF_A_PAGE: Final = 50
"""After so many a page ends with what was found, so that a call takes about a second."""

_FORGOTTEN = Reason(
    message="it ended so long ago that nothing but its name and its request id is remembered"
)

CHECKED_IN_A_STEP: Final = 500
"""Jobs of a specification that the leader checks itself, in some 20 ms; of more it would let all others wait."""


class ControlPlane:
    """Everything that the API and the sessions ask for. `async with` it, and let `run` run.

    Every awaiting method raises StoreFailedError when it could not be recorded, and ClosingError
    when the control plane ends.

    Args:
        store: Where everything is written down; it stays its holder's.
        config: What may be set.
        clock: Seconds on a monotonic clock.
        wall: The wall clock, aware and in UTC.
        ids: Makes a random id of so many characters, `[a-z0-9]`.

    Attributes:
        leader: Decides and records.
        shown: What people see of pipelines and nodes.
        feeds: What agents are told.
        trust: Which certificates are revoked.
        facts: What agents told of their machines.
        events_shown: Events as they are recorded.
    """

    def __init__(
        self,
        *,
        store: Store,
        config: PlaneConfig,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        ids: Callable[[int], str],
    ) -> None:
        self._store = store
        self.feeds = DesiredFeeds()
        self.trust = TrustFeed()
        self.shown = ReadModel(store, config.changes_kept, config.watch_pending_max)
        self.events_shown = EventFeed(store, config.events_in_memory, config.quiet_seconds)
        self.facts = KnownFacts(wall, self.shown.stir_node)
        self.leader = Leader(
            store=store,
            config=config,
            clock=clock,
            wall=wall,
            ids=ids,
            projections=(self.feeds, self.shown, self.trust, self.events_shown),
        )
        self.outbox_grown = self.leader.outbox_grown
        """Set after each commit that added outbox rows; the publisher clears it."""
        self.objects = self.leader.objects
        """What of these rows was recorded for the archive."""

    async def __aenter__(self) -> Self:
        """Load the store."""
        await self.leader.load()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of all callers and watchers."""
        self.leader.close()

    async def run(self) -> None:
        """Drive until cancelled."""
        await self.leader.run()

    def cluster_id(self) -> str:
        """Return the id of the cluster, drawn when its store was made.

        Raises:
            ClosingError: there is no machine.
        """
        return self.leader.open_machine().cluster_id

    def start_id(self) -> str:
        """Return the id of this start, drawn when the store was loaded: revisions of another one mean nothing.

        Raises:
            ClosingError: there is no machine.
        """
        return self.leader.open_machine().start_id

    # --- people

    # A `note` names the caller: it leaves as an event in the transaction of what the call changes.

    async def submit(
        self, submissions: Sequence[Submission], note: CallNote | None = None
    ) -> Sequence[SubmitResult | Refusal]:
        """Record pipelines; durable when it returns; one answer each, in order."""
        self.leader.check_recording(grows=True)
        for one in submissions:
            if len(one.spec.jobs) > CHECKED_IN_A_STEP:
                # What is found of a specification is remembered with it, so the step need not look again.
                await asyncio.to_thread(admission.refusal, one)
        answers = await self.leader.call_all(
            [partial(events.Submit, submission=one, note=note) for one in submissions]
        )
        return [
            await self._submitted(one, answer)
            for one, answer in zip(submissions, answers, strict=True)
        ]

    async def cancel(
        self, ref: PipelineRef, reason: str, note: CallNote | None = None
    ) -> PipelineView:
        """Ask for the end of a pipeline; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        self.leader.check_recording()
        await self.leader.call(lambda call: events.Cancel(call, ref, reason, note=note))
        return await self.shown.find(ref)

    async def finish(self, ref: PipelineRef, note: CallNote | None = None) -> PipelineView:
        """Ask the sources of a pipeline to end; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        await self.leader.call(lambda call: events.Finish(call, ref, note=note))
        return await self.shown.find(ref)

    async def revive(
        self, ref: PipelineRef, note: CallNote | None = None
    ) -> SubmitResult | Refusal:
        """Run the specification of a dead letter again; returns the new pipeline once it is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        self.leader.check_recording(grows=True)
        value = await self.leader.call(lambda call: events.Revive(call, ref, note=note))
        match value:
            case Refusal():
                return value
            case Taken(taken, repeated):
                return SubmitResult(await self.shown.find(taken), repeated)
            case _:
                raise TypeError(f"a revival was answered with {value!r}")

    async def discard(
        self, ref: PipelineRef, note: CallNote | None = None
    ) -> PipelineView | Refusal:
        """Let a dead letter be forgotten as other pipelines are; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        self.leader.check_recording()
        value = await self.leader.call(lambda call: events.Discard(call, ref, note=note))
        return value if isinstance(value, Refusal) else await self.shown.find(ref)

    async def scale(
        self, ref: PipelineRef, job: str, replicas: int, note: CallNote | None = None
    ) -> PipelineView | Refusal:
        """Ask for another number of replicas of a job of the spec; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
            UnknownJobError: Its specification has no such job.
        """
        self.leader.check_recording(grows=True)
        value = await self.leader.call(
            lambda call: events.Scale(call, ref, job, replicas, note=note)
        )
        return value if isinstance(value, Refusal) else await self.shown.find(ref)

    async def explain(self, ref: JobRef) -> Sequence[NodeVerdict]:
        """Say for each node in one sentence why a job is or is not placed there.

        Raises:
            UnknownPipelineError: There is no such pipeline.
            UnknownJobError: It has no such job.
            StoreFailedError: The store is away.
        """
        machine = await self.leader.know(ref.pipeline_ref)
        return machine.explain(ref)

    async def events(
        self,
        query: EventQuery,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        *,
        newest_first: bool = False,
    ) -> Page[Event]:
        """List events, kept and published ones, oldest first unless `newest_first`.

        A page that has a token may have few events or none, where much lies between those that are wanted.

        Raises:
            PageTokenError: The token is from nowhere, or goes in the other direction.
        """
        place = _place(page_token, newest_first=newest_first)
        found: list[Event] = []
        size = 0
        for _ in range(_READINGS_OF_A_PAGE):
            limit = page_size + 1 - len(found)
            read = await self._store.events(query, place, limit, newest_first=newest_first)
            found += read.events
            size += sum(len(event.data_json) for event in read.events)
            place = read.through
            if len(found) > page_size:
                place = found[page_size - 1].sequence
                break
            if not read.more:
                return Page(tuple(found))
            if size >= BATCH_BYTES_MAX:
                break
        return Page(tuple(found[:page_size]), f"{_NEWEST_FIRST if newest_first else ''}{place}")

    async def watch_events(
        self, query: EventQuery, after: int = 0, since: datetime | None = None
    ) -> EventsBegin:
        """Return where a watch of events begins; `events_shown.follow` goes on from there.

        Args:
            query: Which events.
            after: Behind this sequence; 0 for all that are remembered, or those from `since` on.
            since: From the first event on that was recorded then or later.

        Raises:
            UnknownSequenceError: No such event was recorded yet.
        """
        self.leader.check_open()
        newest = self.events_shown.newest
        if after > newest:
            raise UnknownSequenceError(
                f"event {after} was never recorded here, the newest is {newest}: the store is another one, or an older "
                "copy of it was put back; watch without a sequence, or since a time"
            )
        if after or since is None:
            missing = bool(after) and after < await self._store.events_forgotten_through()
            return EventsBegin(after, newest, missing)
        wanted = replace(query, types=(), since=since)
        place, more = 0, True
        while more:
            read = await self._store.events(wanted, place, 1)
            if read.events:
                return EventsBegin(read.events[0].sequence - 1, newest)
            place, more = read.through, read.more
        return EventsBegin(place, newest)

    def watch_pipelines(
        self,
        namespace: str,
        pipeline: str = "",
        since_revision: int = 0,
        *,
        at_once: int = 1,
        asked: PipelineFilter = EVERY_PIPELINE,
        light: bool = False,
        forgotten: bool = False,
    ) -> AbstractContextManager[Changes[PipelineShown]]:
        """Watch the pipelines of a namespace, or one: snapshot, SnapshotEnd, changes.

        The snapshot has those that match a filter, summed up if it is to be `light`. Of the changes those are shown
        of which what lasts does match; how they stand is for the reader to look at. With a filter, light
        or where that is asked for, what is `forgotten` is told, too.

        A `since_revision` that is still known leaves the snapshot and its mark out. The iterator
        raises WatcherTooSlowError, StoreFailedError or ClosingError. Its `resume` says from where to
        go on after the last item. At most `at_once` are taken together, none of them as it is later.
        """
        self.leader.check_open()
        told = forgotten or light or asked is not EVERY_PIPELINE
        return self.shown.watched_pipelines.watch(
            since_revision,
            lambda view: (
                view.namespace == namespace
                and (asked.lasts(view) if told else not isinstance(view, Unlisted))
            ),
            lambda: self.shown.snapshot(namespace, asked, pipeline, light=light),
            only=PipelineRef(namespace, pipeline) if pipeline else None,
            at_once=at_once,
            ended=lambda view: isinstance(view, Unlisted) or view.state.terminal,
        )

    # --- nodes

    def within(self, namespace: str, node: NodeView) -> NodeView:
        """Return a node as a caller may see it that is bound to a namespace; an empty one is all of them."""
        if not namespace:
            return node
        machine = self.leader.machine
        record = None if machine is None else machine.cluster.nodes.get(node.name)
        refs = () if record is None else record.attempts
        own = {ref.name for ref in refs if ref.namespace == namespace}
        return replace(
            node,
            attempts=tuple(name for name in node.attempts if name in own),
            kept=tuple(one for one in node.kept if one.ref.namespace == namespace),
        )

    def watch_nodes(
        self, since_revision: int = 0, *, facts: bool = False, at_once: int = 1
    ) -> AbstractContextManager[Changes[NodeView]]:
        """Watch all nodes, as `watch_pipelines` does pipelines; with `facts`, also when those alone are new."""
        self.leader.check_open()
        return self.shown.watched_nodes.watch(
            since_revision,
            lambda _: True,
            lambda: each(self.shown.node_views()),
            stirred=facts,
            at_once=at_once,
        )

    async def drain(
        self,
        name: str,
        *,
        drained: bool,
        move_seconds: float | None = None,
        note: CallNote | None = None,
    ) -> NodeView:
        """Stop placing on a node, or take it back; after `move_seconds` what runs there is moved.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
        """
        self.leader.check_recording()
        await self.leader.call(
            lambda call: events.Drain(call, name, drained, move_seconds, note=note)
        )
        return self.shown.node(name)

    async def adopt(self, name: str, note: CallNote | None = None) -> NodeView:
        """Let a quarantined node give up what it has and follow this controller.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
            NotQuarantinedError: It follows this controller already.
        """
        self.leader.check_recording()
        await self.leader.call(lambda call: events.Adopt(call, name, note=note))
        return self.shown.node(name)

    async def forget_node(self, name: str, note: CallNote | None = None) -> str:
        """Remember a node no longer that is gone; returns the name of its gossip member.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
            NodeNotGoneError: It is there, or something is still on it.
        """
        self.leader.check_recording()
        machine = self.leader.machine
        node = None if machine is None else machine.cluster.nodes.get(name)
        member = name if node is None else node.member_name or name
        await self.leader.call(lambda call: events.ForgetNode(call, name, note=note))
        self.facts.forget(name)
        return member

    # --- identities

    @property
    def identities(self) -> Identities:
        """Join tokens and certificates, to be read.

        Raises:
            ControlError: there is no machine for now.
        """
        return self.leader.open_machine().identities

    async def create_token(self, row: TokenRow) -> Refusal | None:
        """Record a join token."""
        self.leader.check_recording(grows=True)
        return _refusal(await self.leader.call(lambda call: events.CreateToken(call, row)))

    async def revoke_token(self, token_id: str) -> Refusal | None:
        """Take a join token no more."""
        self.leader.check_recording()
        return _refusal(await self.leader.call(lambda call: events.RevokeToken(call, token_id)))

    async def join(
        self, row: CertificateRow, secret_hash: str, address: str
    ) -> CertificateRow | Refusal:
        """Record a certificate together with the use of its token; returns what may be handed out.

        `address` is where the token came from.
        """
        self.leader.check_recording(grows=True)
        return _issued(
            await self.leader.call(lambda call: events.Join(call, row, secret_hash, address))
        )

    async def renew(self, row: CertificateRow, serial: str) -> CertificateRow | Refusal:
        """Record a certificate for an identity that proves itself by the one with this serial."""
        self.leader.check_recording(grows=True)
        return _issued(await self.leader.call(lambda call: events.Renew(call, row, serial)))

    async def revoke_identity(self, holder: Holder, revoker: str) -> int | Refusal:
        """Revoke all certificates of an identity; returns how many. The session of a node ends."""
        self.leader.check_recording()
        value = await self.leader.call(lambda call: events.RevokeIdentity(call, holder, revoker))
        if isinstance(value, Revoked):
            return value.certificates
        if isinstance(value, Refusal):
            return value
        raise TypeError(f"a revocation was answered with {value!r}")

    # --- secrets

    @property
    def secrets(self) -> JobSecrets:
        """Secrets, sealed, to be read.

        Raises:
            ControlError: there is no machine for now.
        """
        return self.leader.open_machine().secrets

    def lacks_secret(self, namespace: str, uses: Sequence[SecretUse]) -> str:
        """Say why a job of a namespace cannot be given the secrets that it names now; empty if it can.

        Raises:
            ControlError: there is no machine for now.
        """
        return self.secrets.lack(namespace, uses)

    async def set_secret(self, row: SecretRow, note: CallNote | None = None) -> Refusal | None:
        """Record a secret, in the place of its version before."""
        self.leader.check_recording(grows=True)
        return _refusal(await self.leader.call(lambda call: events.SetSecret(call, row, note=note)))

    async def remove_secret(
        self, namespace: str, name: str, note: CallNote | None = None
    ) -> Refusal | None:
        """Forget a secret."""
        self.leader.check_recording()
        return _refusal(
            await self.leader.call(
                lambda call: events.RemoveSecret(call, namespace, name, note=note)
            )
        )

    async def reseal_secrets(self, rows: tuple[SecretRow, ...]) -> None:
        """Record the same values of secrets under another key."""
        self.leader.check_recording(grows=True)
        await self.leader.call(lambda call: events.ResealSecrets(call, rows))

    # --- stored pipelines

    @property
    def stored(self) -> StoredPipelines:
        """How far stored pipelines have come, to be read.

        Raises:
            ControlError: there is no machine for now.
        """
        return self.leader.open_machine().stored

    async def stored_versions(
        self, keys: Sequence[tuple[str, str, int]], *, content: bool = False
    ) -> Sequence[StoredVersionRow]:
        """Return versions by namespace, name and number, in that order; what is not there is left out.

        Raises:
            StoreFailedError: the store is away.
        """
        return await self._store.stored(keys, content=content)

    async def store_pipeline(
        self, row: StoredVersionRow, update_of: int, note: CallNote | None = None
    ) -> VersionStored | Refusal:
        """Keep a version; `update_of` is the number of the one before, 0 for the first one of a name."""
        self.leader.check_recording(grows=True)
        value = await self.leader.call(
            lambda call: events.StorePipeline(call, row, update_of, note=note)
        )
        if isinstance(value, VersionStored | Refusal):
            return value
        raise TypeError(f"a version was answered with {value!r}")

    async def delete_stored(
        self, namespace: str, name: str, version: int, note: CallNote | None = None
    ) -> Refusal | None:
        """Forget all versions of a name, if this is the newest one; 0 for any."""
        self.leader.check_recording()
        return _refusal(
            await self.leader.call(
                lambda call: events.DeleteStored(call, namespace, name, version, note=note)
            )
        )

    # --- callers

    def revoked(self, serial: int) -> bool:
        """Whether the certificate of a serial number is revoked, as was committed last."""
        return self.trust.is_revoked(serial)

    async def note_call(self, note: CallNote, name: str) -> None:
        """Tell of a call that changed something beside the machine, by the name of what it changed."""
        await self.leader.call(lambda call: events.CallMade(call, name, note=note))

    async def note_refused(self, caller: str, calls: RefusedCalls) -> None:
        """Tell of calls of one caller that were refused."""
        await self.leader.call(
            lambda call: events.CallsRefused(
                call, caller, dict(calls.reasons), calls.method, calls.address
            )
        )

    # --- agents

    async def open_session(
        self, hello: Hello, session_id: str, address: str = "", serial: str = ""
    ) -> Admitted:
        """Record a node and what it says of its attempts; replaces an older session of the node.

        `address` is where its agent dialled from, `serial` (hexadecimal) that of its certificate.

        Raises:
            HelloRefusedError: The node cannot be recorded.
            NameTakenError: Another agent has its name.
            RevokedError: The certificate was revoked.
            InternalError: The controller cannot take what this node says.
        """
        self.leader.check_set_aside(hello.node)
        value = await self.leader.call(
            lambda call: events.HelloReceived(call, hello, session_id, address, serial)
        )
        if not isinstance(value, Admitted):
            raise TypeError(f"a Hello was answered with {value!r}")
        return value

    async def observe(
        self, node: str, session_id: str, observations: Sequence[Observation]
    ) -> Sequence[Fenced]:
        """Record observations; returns those that were refused because they are stale.

        Raises:
            SessionEndedError: The session is over.
        """
        seen = tuple(observations)
        value = await self.leader.call(lambda call: events.Observed(call, node, session_id, seen))
        return value if isinstance(value, tuple) else ()

    def progress(self, node: str, session_id: str, progress: Progress) -> None:
        """Take counters of an attempt; ignored if they are stale."""
        if self.is_current(node, progress.ref):
            self.leader.inbox.progress(events.Progressed(node, session_id, progress))

    def condition(self, node: str, session_id: str, condition: NodeCondition) -> None:
        """Take how a node stands; ignored if the session is over."""
        self.leader.inbox.condition(events.Conditioned(node, session_id, condition))

    def bundles(self, node: str, session_id: str, digests: frozenset[str]) -> None:
        """Take which bundles a node has; ignored if the session is over."""
        self.leader.inbox.bundles(events.BundlesReported(node, session_id, digests))

    async def close_session(self, node: str, session_id: str) -> None:
        """Say that the stream broke or ended; the lease goes on."""
        await self.leader.call(lambda call: events.SessionClosed(call, node, session_id))

    async def stream_worker_gone(self, node: str) -> None:
        """Say that a node's stream worker is dead; ignored while the node has a session."""
        await self.leader.call(lambda call: events.StreamWorkerGone(call, node))

    def is_current(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt is the placed one of its job, and on this node."""
        if self.leader.machine is None:
            return False
        record = self.leader.machine.cluster.nodes.get(node)
        return record is not None and ref in record.attempts

    async def may_keep_logs(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt was on this node and did not succeed: then its logs may still be archived."""
        try:
            machine = await self.leader.know(ref.pipeline_ref)
        except ControlError:
            return False
        job = machine.cluster.job(ref.job_ref)
        ends = {JobState.FAILED, JobState.CANCELLED}
        return job is not None and any(
            one.ref == ref and one.node == node and one.state in ends for one in job.attempts
        )

    def assignment(self, node: str, ref: AttemptRef) -> Assignment | None:
        """What the agent of this node is told about an attempt that is placed there; None if none is."""
        machine = self.leader.machine
        record = None if machine is None else machine.cluster.nodes.get(node)
        attempt = None if record is None else record.attempts.get(ref)
        if machine is None or attempt is None:
            return None
        return machine.cluster.assignment(attempt)

    def was_placed(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt is, or was, placed on this node."""
        job = None if self.leader.machine is None else self.leader.machine.cluster.job(ref.job_ref)
        return job is not None and any(
            attempt.ref == ref and attempt.node == node for attempt in reversed(job.attempts)
        )

    # --- membership

    def member_verdict(self, member: str, state: MemberState) -> None:
        """Take what gossip believes of a member, by the member name that a node's Hello gave."""
        self.leader.inbox.member_verdict(member, state)

    async def _submitted(
        self, submission: Submission, answer: AnswerValue
    ) -> SubmitResult | Refusal:
        match answer:
            case Taken(ref, _, ended) if ended is not None:
                view = PipelineView(ref.pipeline, ref.namespace, ended, submission.spec, _FORGOTTEN)
                return SubmitResult(view, repeated=True)
            case Taken(ref, repeated):
                return SubmitResult(await self.shown.find(ref), repeated)
            case Refusal():
                return answer
            case _:
                raise TypeError(f"a submission was answered with {answer!r}")


def _place(page_token: str, *, newest_first: bool) -> int:
    if not newest_first or not page_token:
        return token(page_token)
    if not page_token.startswith(_NEWEST_FIRST):
        raise PageTokenError(
            f"page token {page_token!r} goes on to newer events: use it without newest_first"
        )
    return token(page_token.removeprefix(_NEWEST_FIRST))


def _refusal(value: AnswerValue) -> Refusal | None:
    if value is None or isinstance(value, Refusal):
        return value
    raise TypeError(f"a request was answered with {value!r}")


def _issued(value: AnswerValue) -> CertificateRow | Refusal:
    if isinstance(value, Issued):
        return value.certificate
    if isinstance(value, Refusal):
        return value
    raise TypeError(f"a request for a certificate was answered with {value!r}")
