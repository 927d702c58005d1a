"""Performs what the machine decides about one attempt, one effect after the other.

Each attempt has a queue of its own, so that one which waits for its journal entry or its keeper
holds up no other attempt, and the entries of many become durable with one fsync. What takes long
(preparing, collecting, uploading) runs beside the queue and can be given up; so are the stream
worker's orders, which are given until it takes them. How work is done is the workbench's business;
here are its order, its end, what it waits for, and new grants.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, assert_never

from edge_agent.attempt_folder import keeper_id
from edge_agent.attempt_services import AttemptServices
from edge_agent.attempts import effects, events
from edge_agent.bundles.layout import BundleRefusedError
from edge_agent.download import ChecksumError, FetchError
from edge_agent.environments.installer import InstallError
from edge_agent.environments.interpreter import InterpreterMissingError
from edge_agent.environments.recipe import RecipeError
from edge_agent.error_words import words_of
from edge_agent.keeper.client import KeeperError, KeeperGoneError, StartRequest
from edge_agent.lease import NodeLease
from edge_agent.program import ProgramError
from edge_agent.stream_link import StreamsError, StreamsGoneError
from edge_agent.stream_orders import StreamOrders
from edge_agent.uploads.collect import Problems
from edge_agent.uploads.uploader import GrantRefusedError
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.cause import causes
from shoal.model import Artifact, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.redaction import redacted
from shoal.session.assignment import Assignment
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.uploads import ArtifactParts, UploadGrant, UploadsWanted
from shoal.spec import Placement

LOG = logging.getLogger(__name__)

_Work: TypeAlias = Coroutine[Any, Any, events.AttemptsEvent]

_QUEUE_SIZE: Final = 1024
_QUIET_SECONDS: Final = 1.0
"""What takes no longer is not worth a word."""
_SAY_AGAIN_SECONDS: Final = 5.0
_LAST_LOGS_SECONDS: Final = 5.0
_REGRANT_PAUSE_SECONDS: Final = 1.0
_REGRANTS_MAX: Final = 10
_LATER: Final = Backoff(1.0, 30.0, jitter=0.0)
"""How long the controller is left alone whose archive is away."""
_UPLOADS_AT_ONCE: Final = 8
_WORDS_MAX: Final = 8_000
_NO_ROOM: Final = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""What the system, and every program that passes its words on, says where there is no room."""


@dataclass(frozen=True, slots=True)
class Durable:
    """A journal entry on its way; what comes after it waits for it."""

    done: Awaitable[None]


@dataclass(frozen=True, slots=True)
class _Round:
    """What one answer of the controller lets us store; `left` is shared, and what is not done is noted."""

    effect: effects.Upload
    left: Iterator[Artifact]
    grants: Mapping[str, UploadGrant]
    parts: Mapping[str, ArtifactParts]
    refused: list[str] = field(default_factory=list[str])
    later: list[str] = field(default_factory=list[str])


class AttemptShell:
    """The shell of one attempt.

    Args:
        ref: which attempt.
        services: what it shares with the others.
    """

    def __init__(self, ref: AttemptRef, services: AttemptServices) -> None:
        self._ref = ref
        self._services = services
        self._folder = services.folder(ref)
        self._bench = services.workshop.bench(ref)
        self._queue: asyncio.Queue[effects.AttemptEffect | Durable] = asyncio.Queue(_QUEUE_SIZE)
        self._work: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        """Set once the program is not wanted any more."""
        self._orders = StreamOrders(ref, services.streams)
        self._ordering: asyncio.Task[None] | None = None
        self._waits = ""
        self._began = 0.0
        self._said = ""
        self._stored: dict[str, Artifact] = {}
        self._lost: dict[str, str] = {}
        """Artifacts that cannot be stored, and why."""
        self._regrants = 0
        self._away = 0
        """How often in a row the controller could not reach the archive."""

    async def put(self, effect: effects.AttemptEffect | Durable) -> None:
        """Perform an effect after those before it."""
        await self._queue.put(effect)

    async def run(self) -> None:
        """Perform effects until the attempt is forgotten, or until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                effect = await self._queue.get()
                await self._perform(effect, group)
                if isinstance(effect, effects.Forget):
                    return

    async def _perform(
        self, effect: effects.AttemptEffect | Durable, group: asyncio.TaskGroup
    ) -> None:
        match effect:
            case Durable(done):
                await done
            case effects.PrepareBundle():
                await self._begin(group, effect.turn, self._lay_out(effect), ReasonCode.BUNDLE)
            case effects.PrepareEnvironment():
                await self._begin(group, effect.turn, self._build(effect), ReasonCode.INSTALL)
            case effects.PrepareFiles():
                await self._begin(group, effect.turn, self._fetch(effect), ReasonCode.FETCH)
            case effects.StartProgram():
                await self._begin(group, effect.turn, self._start(effect), ReasonCode.START)
            case effects.StopProgram(ref, grace_seconds):
                self._stopped.set()
                # A keeper that is gone has taken the program with it.
                with contextlib.suppress(KeeperError):
                    await self._services.keeper.stop(keeper_id(ref), grace_seconds)
            case effects.AttachStreams(assignment):
                await self._attach(assignment)
            case effects.UpdateLanes(_, lanes):
                self._orders.update_lanes(lanes)
                self._order(group)
            case effects.Conclude(_, succeeded):
                self._orders.conclude(succeeded=succeeded)
                self._order(group)
            case effects.CollectArtifacts():
                await self._begin(group, effect.turn, self._collect(effect), ReasonCode.ARCHIVE)
            case effects.WantUploads(ref, artifacts, parts):
                await self._services.say(UploadsWanted(ref, artifacts, parts))
            case effects.Upload():
                await self._begin(group, effect.turn, self._upload(effect), ReasonCode.ARCHIVE)
            case effects.CancelWork():
                await self._give_up()
            case effects.Report(observation):
                await self._report(observation)
            case effects.Forget(_, has_ports, keep):
                await self._forget(has_ports=has_ports, keep=keep)
            case _:
                assert_never(effect)

    # ---- work beside the queue

    async def _begin(
        self, group: asyncio.TaskGroup, turn: int, work: _Work, code: ReasonCode
    ) -> None:
        await self._give_up()
        self._work = group.create_task(self._finish(turn, work, code))
        # One that is given up before its first step has not awaited the work.
        self._work.add_done_callback(lambda _: work.close())

    async def _finish(self, turn: int, work: _Work, code: ReasonCode) -> None:
        try:
            outcome = await self._said_while(work)
        except Exception as raised:  # the root of one attempt's work: its failure is its own
            error = causes(raised)[0]
            known = _code(error, code)
            if known is None:
                LOG.exception("work failed unexpectedly", extra=fields(name=self._ref.name))
            reason = Reason(known or code, 0, _clip(self._shown(redacted(words_of(error)))))
            outcome = events.WorkFailed(self._ref, turn, reason)
        await self._services.post(outcome)

    async def _said_while(self, work: _Work) -> events.AttemptsEvent:
        """Do it, and say for what it waits: after a moment, when that changes, and now and then.

        Now and then, because words are lost with a session, and because time passes.
        """
        self._waits = ""
        self._began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            saying = group.create_task(self._say_now_and_then())
            outcome = await work
            saying.cancel()
        if self._said:
            self._say_progress("")  # or it would stand beside what comes next
        return outcome

    async def _say_now_and_then(self) -> None:
        pause = _QUIET_SECONDS
        while True:
            await asyncio.sleep(pause)
            self._say_waits()
            pause = _SAY_AGAIN_SECONDS

    def _wait_for(self, text: str) -> None:
        """Take up for what the work waits: why, and until when. A short wait is not worth a word."""
        changed, self._waits = text != self._waits, text
        passed = asyncio.get_running_loop().time() - self._began
        if changed and passed >= _QUIET_SECONDS:
            self._say_waits()

    def _say_waits(self) -> None:
        if self._waits:
            passed = asyncio.get_running_loop().time() - self._began
            self._say_progress(f"{self._waits}; {passed:.0f} s so far")

    async def _give_up(self) -> None:
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work})
        self._work = None

    async def _lay_out(self, effect: effects.PrepareBundle) -> events.AttemptsEvent:
        await self._bench.lay_out(effect.assignment, self._wait_for)
        return events.Prepared(self._ref, effect.turn, self._services.wall())

    async def _build(self, effect: effects.PrepareEnvironment) -> events.AttemptsEvent:
        self._wait_for(
            "its environment is being built for another attempt here, until that one has it"
        )
        await self._bench.build(effect.assignment, self._say_build)
        return events.Prepared(self._ref, effect.turn, self._services.wall())

    def _say_build(self, text: str) -> None:
        self._waits = text
        self._say_progress(text)

    def _shown(self, text: str) -> str:
        """Words without the secrets of the attempt."""
        return self._services.mask(self._ref).text(text)

    def _say_progress(self, text: str) -> None:
        self._said = text
        # Only the latest text is of interest, so one that finds no room is no loss.
        self._services.hint(Progress(self._ref, (), self._shown(text)))

    async def _fetch(self, effect: effects.PrepareFiles) -> events.AttemptsEvent:
        await self._bench.fetch(effect.assignment, self._wait_for, self._services.ask)
        return events.Prepared(self._ref, effect.turn, self._services.wall())

    async def _start(self, effect: effects.StartProgram) -> events.AttemptsEvent:
        services, assignment = self._services, effect.assignment
        request = await self._bench.plan(assignment)
        if assignment.job.placement is Placement.AT_MOST_ONE_RUNNING:
            self._wait_for(
                "this node has no lease, without which a job that is at_most_one_running does not "
                "start: until the controller renews it"
            )
            await self._start_leased(request, effect.keeper)
        else:
            self._wait_for(
                "the keeper is to start the program, and may take 15 s, until it is lost"
            )
            await services.keeper.start(request, effect.keeper)
        services.logs.follow(self._ref, self._folder.path, services.mask(self._ref))
        return events.ProgramStarted(self._ref, effect.turn, services.wall())

    async def _start_leased(self, request: StartRequest, keeper: str) -> None:
        """Start what may only run under a lease; a start that came too late is tried with the next one."""
        lease = self._services.lease
        while True:
            until = await self._wait_for_lease(lease)
            try:
                await self._services.keeper.start(
                    replace(request, lease_until=until, lease_grace_seconds=lease.grace_seconds),
                    keeper,
                )
            except KeeperGoneError:
                raise
            except KeeperError:
                if not lease.over():
                    raise
            else:
                return

    async def _wait_for_lease(self, lease: NodeLease) -> float:
        """Wait until a program may run, and return until when.

        Raises:
            ProgramError: it is not wanted any more; a newer attempt may run elsewhere by now.
        """
        leased = asyncio.ensure_future(lease.wait())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((leased, stopped), return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.is_set():
                raise ProgramError("it was stopped before this node had a lease for it")
            return leased.result()
        finally:
            leased.cancel()
            stopped.cancel()

    async def _collect(self, effect: effects.CollectArtifacts) -> events.AttemptsEvent:
        self._wait_for("its results are being found and hashed, until the last of them is")
        found = await self._bench.collect(effect.assignment, succeeded=effect.succeeded)
        return events.ArtifactsCollected(
            self._ref, effect.turn, found.artifacts, found.problem, found.parts
        )

    async def _upload(self, effect: effects.Upload) -> events.AttemptsEvent:
        self._wait_for(
            f"{len(effect.artifacts)} artifacts are being stored, until the archive has taken them"
        )
        done = {*self._stored, *self._lost}
        turn = _Round(
            effect,
            iter([one for one in effect.artifacts if one.path not in done]),
            {grant.path: grant for grant in effect.grants},
            {one.path: one for one in effect.parts},
        )
        async with asyncio.TaskGroup() as group:
            for _ in range(_UPLOADS_AT_ONCE):
                group.create_task(self._store_each(turn))
        done = {*self._stored, *self._lost}
        left = tuple(one for one in effect.artifacts if one.path not in done)
        if turn.refused:
            self._regrants += 1
            LOG.warning(
                "new addresses are needed",
                extra=fields(name=self._ref.name, error=turn.refused[0]),
            )
        if turn.refused or turn.later:
            self._away = self._away + 1 if turn.later else 0
            pause = _LATER.delay_seconds(self._away, 1.0) if turn.later else 0.0
            if turn.later:
                self._wait_for(
                    f"{len(left)} artifacts wait for the archive: {turn.later[0]}; the controller "
                    f"is asked again in {pause:.0f} s, until the archive has taken them"
                )
            await asyncio.sleep(max(pause, _REGRANT_PAUSE_SECONDS))
        if left:
            return events.GrantsExpired(self._ref, effect.turn, left)
        problems = Problems()
        for path, why in self._lost.items():
            problems.add(path, why)
        stored = tuple(
            self._stored[one.path] for one in effect.artifacts if one.path in self._stored
        )
        words = self._shown(problems.words(len(stored)))
        return events.Uploaded(self._ref, effect.turn, stored, words)

    async def _store_each(self, turn: "_Round") -> None:
        """Store one after the other of what several of us share; what is not stored is asked about again."""
        for artifact in turn.left:
            path = artifact.path
            grant, cut = turn.grants.get(path), turn.parts.get(path)
            if grant is None and cut is not None:
                continue  # it was more than one question has room for
            if grant is None or grant.problem:
                said = grant.problem if grant else "it did not say why"
                self._lost[path] = f"was granted no place by the controller: {said}"
                continue
            if grant.stored:
                self._stored[path] = replace(artifact, key=grant.key)
                continue
            if grant.later:
                turn.later.append(grant.later)
                continue
            try:
                if grant.parts and cut is not None:
                    await self._bench.store_parts(
                        artifact, cut, grant, self._wait_for, salvaged=turn.effect.salvaged
                    )
                else:
                    self._stored[path] = await self._bench.store(
                        artifact, grant, self._wait_for, salvaged=turn.effect.salvaged
                    )
            except GrantRefusedError as error:
                if self._regrants < _REGRANTS_MAX:
                    turn.refused.append(str(error))
                else:
                    self._lost[path] = (
                        f"was refused {self._regrants + 1} times by the archive, last {error}"
                    )
            except OSError as error:
                self._lost[path] = f"cannot be read any more: {error.strerror or error}"

    # ---- in the queue

    async def _attach(self, assignment: Assignment) -> None:
        try:
            await self._services.streams.attach(assignment, self._folder)
        except StreamsError as error:
            # The loss of worker or keeper is told, too, and this may come before it: it says the same.
            gone = isinstance(error, StreamsGoneError)
            code = ReasonCode.LOST if gone else ReasonCode.STREAM
            words = f"the stream worker does not take the ports: {error}"
            await self._services.post(events.StreamsBroken(self._ref, Reason(code, 0, words)))

    def _order(self, group: asyncio.TaskGroup) -> None:
        if self._ordering is None:
            self._ordering = group.create_task(self._orders.run())

    async def _report(self, observation: Observation) -> None:
        if observation.state.terminal:
            await self._services.workshop.ended(self._ref)
            # What a program said last should be there when a person reads that it has ended.
            await self._services.logs.finish(self._ref, _LAST_LOGS_SECONDS)
        LOG.info(
            "attempt",
            extra=fields(
                name=self._ref.name,
                epoch=self._ref.epoch,
                state=observation.state.name,
                reason=observation.reason.short,
                message=observation.reason.message,
            ),
        )
        await self._services.say(observation)

    async def _forget(self, *, has_ports: bool, keep: bool) -> None:
        await self._give_up()
        services = self._services
        if self._ordering is not None:
            self._ordering.cancel()
        detached = not has_ports or await self._orders.detach()
        with contextlib.suppress(KeeperError):
            await services.keeper.forget(keeper_id(self._ref))
        await services.workshop.ended(self._ref)
        await services.logs.finish(self._ref, _LAST_LOGS_SECONDS)
        services.logs.unfollow(self._ref)
        try:
            mask = services.mask(self._ref)
            await (self._bench.keep(mask) if keep else self._bench.throw())
        except OSError as error:
            # The next start of the agent tries again; this name is not used again until then.
            LOG.warning(
                "the folder of an attempt cannot be moved away",
                extra=fields(name=self._ref.name, path=self._folder.path, error=error),
            )
        if not detached:
            # Last, since all else goes without the worker; until then, it keeps what it has of it.
            await self._orders.detach_at_last()
        await services.journal.forget(self._ref)


def _code(error: BaseException, expected: ReasonCode) -> ReasonCode | None:
    """The reason that an error stands for in work that `expected` one; None for a surprise."""
    if isinstance(error, Exception) and any(words in str(error) for words in _NO_ROOM):
        return ReasonCode.DISK
    match error:
        case ChecksumError():
            return ReasonCode.ARTIFACT_CHECKSUM
        case FetchError():
            return ReasonCode.FETCH
        case InstallError() | InterpreterMissingError() | RecipeError():
            return ReasonCode.INSTALL
        case KeeperGoneError():
            return ReasonCode.LOST
        case BundleRefusedError() | KeeperError() | ProgramError() | OSError():
            return expected
        case _:
            return None


def _clip(words: str) -> str:
    """At most so much of an installer's words: their end says what was wrong."""
    return words if len(words) <= _WORDS_MAX else "… " + words[-_WORDS_MAX:]
