"""Performs what the machine decides about one attempt, one effect after the other.

Each attempt has a line of its own, so that one which waits for its journal entry or its keeper
holds up no other attempt, and the entries of many become durable with one fsync. An effect is performed
where it is put, unless one before it waits; a task is made for what waits itself, and for nothing else. What takes
long (preparing, collecting, uploading) runs beside the line and can be given up; so are the stream
worker's orders, which are given until it takes them. How work is done is the workbench's business;
here are its order, its end, what it waits for, and new grants.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeAlias, assert_never

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.attempt_services import AttemptServices
from edge_agent.attempts import effects, events
from edge_agent.attempts.waits import WorkWait
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
from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.redaction import redacted
from shoal.session.assignment import Assignment
from shoal.session.messages import FromAgent
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.uploads import ArtifactParts, UploadGrant, UploadsWanted
from shoal.spec import Placement

LOG = logging.getLogger(__name__)

_Work: TypeAlias = Coroutine[Any, Any, events.AttemptEvent]

_LINE_MAX: Final = 1024
_LAST_LOGS_SECONDS: Final = 5.0
_REGRANT_PAUSE_SECONDS: Final = 1.0
_REGRANTS_MAX: Final = 10
_LATER: Final = Backoff(1.0, 30.0, jitter=0.0)
"""How long the controller is left alone whose archive is away."""
_UPLOADS_AT_ONCE: Final = 8
_WORDS_MAX: Final = 8_000
_STARTING: Final = "the keeper is to start the program, and may take 15 s, until it is lost"
_NO_ROOM: Final = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""What the system, and every program that passes its words on, says where there is no room."""


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
        forgotten: hears that nothing is left of it, and whether its folder is kept.
    """

    def __init__(
        self,
        ref: AttemptRef,
        services: AttemptServices,
        forgotten: Callable[[AttemptRef, bool], None],
    ) -> None:
        self._ref = ref
        self._services = services
        self._forgotten = forgotten
        self._bench = services.workshop.bench(ref)
        self._line: deque[effects.AttemptEffect | asyncio.Future[None]] = deque()
        self._held: asyncio.Future[None] | None = None
        """What the next effect waits for."""
        self._performing = False
        self._room: asyncio.Event | None = None
        self._work: asyncio.Future[None] | None = None
        self._wait: WorkWait | None = None
        self._stopped = asyncio.Event()
        """Set once the program is not wanted any more."""
        self._orders = StreamOrders(ref, services.streams)
        self._ordering: asyncio.Future[None] | None = None
        self._stored: dict[str, Artifact] = {}
        self._lost: dict[str, str] = {}
        """Artifacts that cannot be stored, and why."""
        self._regrants = 0
        self._away = 0
        """How often in a row the controller could not reach the archive."""

    @property
    def _folder(self) -> AttemptFolder:
        return self._services.folder(self._ref)

    def put(
        self, effect: effects.AttemptEffect | asyncio.Future[None]
    ) -> Coroutine[Any, Any, None] | None:
        """Perform an effect after those before it; what is returned waits for room in the line.

        A future is an effect that is on its way, such as an entry of the journal.
        """
        if self._held is None and not self._line and not self._performing:
            self._performing = True
            held = self._perform(effect)
            self._performing = False
            if held is not None:
                self._hold(held)
            if self._line:
                self._go_on()
            return None
        self._line.append(effect)
        self._go_on()
        if len(self._line) < _LINE_MAX:
            return None
        self._room = self._room or asyncio.Event()
        return self._wait_for_room(self._room)

    async def _wait_for_room(self, room: asyncio.Event) -> None:
        await room.wait()

    def _go_on(self) -> None:
        """Perform what is in the line, up to the first that something has to wait for.

        What an effect brings about at once may be an effect again: that one is next, and not within the first.
        """
        if self._performing:
            return
        while self._line and self._held is None:
            self._performing = True
            held = self._perform(self._line.popleft())
            self._performing = False
            if held is not None:
                self._hold(held)
        if self._room is not None and len(self._line) < _LINE_MAX:
            self._room.set()
            self._room = None

    def _hold(self, held: asyncio.Future[None]) -> None:
        """Let the next effect wait for this."""
        if not held.done():
            self._held = held
            held.add_done_callback(self._held_no_more)

    def _held_no_more(self, held: asyncio.Future[None]) -> None:
        self._held = None
        if held.cancelled() or held.exception() is not None:
            return  # the agent ends
        try:
            self._go_on()
        except Exception as error:  # noqa: BLE001 - a callback's error would be logged and no more
            self._services.spawn(_raise(error))

    def _perform(
        self, effect: effects.AttemptEffect | asyncio.Future[None]
    ) -> asyncio.Future[None] | None:
        """Begin an effect, and return what the next one waits for."""
        match effect:
            case asyncio.Future():
                return effect
            case effects.Prepare(assignment):
                self._bench.prepare(assignment)
            case effects.StartProgram():
                return self._start(effect)
            case effects.Report(observation):
                return self._report(observation)
            case effects.Forget(_, has_ports, keep):
                if has_ports or keep or not self._forget_at_once():
                    return self._services.spawn(self._forget(has_ports=has_ports, keep=keep))
            case effects.CollectArtifacts():
                return self._look(effect)
            case effects.PrepareBundle():
                return self._begin(effect.turn, self._lay_out(effect), ReasonCode.BUNDLE)
            case effects.PrepareEnvironment():
                return self._begin(effect.turn, self._build(effect), ReasonCode.INSTALL)
            case effects.PrepareFiles():
                return self._begin(effect.turn, self._fetch(effect), ReasonCode.FETCH)
            case effects.StopProgram(_, grace_seconds):
                self._stopped.set()
                return self._services.spawn(self._stop(grace_seconds))
            case effects.AttachStreams(assignment):
                return self._services.spawn(self._attach(assignment))
            case effects.UpdateLanes(_, lanes):
                self._orders.update_lanes(lanes)
                self._order()
            case effects.Conclude(_, succeeded):
                self._orders.conclude(succeeded=succeeded)
                self._order()
            case effects.WantUploads(ref, artifacts, parts):
                contents = self._services.contents.of(ref, artifacts)
                return self._say(UploadsWanted(ref, artifacts, parts, contents))
            case effects.Upload():
                self._services.contents.drop(self._ref)  # what was not stored has an address now
                return self._begin(effect.turn, self._upload(effect), ReasonCode.ARCHIVE)
            case effects.CancelWork():
                return self._services.spawn(self._give_up()) if self._is_working() else None
            case _:
                assert_never(effect)
        return None

    def _say(self, message: FromAgent) -> asyncio.Future[None] | None:
        if self._services.hint(message):
            return None
        return self._services.spawn(self._services.say(message))

    # ---- work beside the line

    def _is_working(self) -> bool:
        return self._work is not None and not self._work.done()

    def _begin(self, turn: int, work: _Work, code: ReasonCode) -> asyncio.Future[None] | None:
        if self._is_working():
            return self._services.spawn(self._begin_next(turn, work, code))
        self._begin_now(turn, work, code)
        return None

    async def _begin_next(self, turn: int, work: _Work, code: ReasonCode) -> None:
        await self._give_up()
        self._begin_now(turn, work, code)

    def _begin_now(self, turn: int, work: _Work, code: ReasonCode) -> None:
        self._work = self._services.spawn(self._finish(turn, work, code))
        # One that is given up before its first step has not awaited the work.
        self._work.add_done_callback(lambda _: work.close())

    async def _finish(self, turn: int, work: _Work, code: ReasonCode) -> None:
        wait = self._wait = self._services.waits.begin(self._say_progress)
        try:
            outcome = await work
        except Exception as raised:  # noqa: BLE001 - the root of one attempt's work: its failure is its own
            outcome = self._failed(turn, raised, code)
        finally:
            self._services.waits.end(wait)
        wait.end()
        self._work = None  # what comes of it may be the next work
        await self._services.post(outcome)

    def _failed(self, turn: int, raised: Exception, code: ReasonCode) -> events.WorkFailed:
        error = causes(raised)[0]
        known = _code(error, code)
        if known is None:
            LOG.error(
                "work failed unexpectedly", extra=fields(name=self._ref.name), exc_info=raised
            )
        reason = Reason(known or code, 0, _clip(self._shown(redacted(words_of(error)))))
        return events.WorkFailed(self._ref, turn, reason)

    def _wait_for(self, text: str) -> None:
        """Take up for what the work waits: why, and until when."""
        if self._wait is not None:
            self._wait.wait_for(text)

    async def _give_up(self) -> None:
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work})
            if self._wait is not None:
                self._services.waits.end(self._wait)
        self._work = None

    async def _lay_out(self, effect: effects.PrepareBundle) -> events.AttemptEvent:
        await self._bench.lay_out(effect.assignment, self._wait_for)
        return events.Prepared(self._ref, effect.turn, self._services.wall())

    async def _build(self, effect: effects.PrepareEnvironment) -> events.AttemptEvent:
        self._wait_for(
            "its environment is being built for another attempt here, until that one has it"
        )
        await self._bench.build(effect.assignment, self._say_build)
        return events.Prepared(self._ref, effect.turn, self._services.wall())

    def _say_build(self, text: str) -> None:
        if self._wait is not None:
            self._wait.tell(text)

    def _shown(self, text: str) -> str:
        """Words without the secrets of the attempt."""
        return self._services.mask(self._ref).text(text)

    def _say_progress(self, text: str) -> None:
        # Only the latest text is of interest, so one that finds no room is no loss.
        self._services.hint(Progress(self._ref, (), self._shown(text)))

    async def _fetch(self, effect: effects.PrepareFiles) -> events.AttemptEvent:
        await self._bench.fetch(effect.assignment, self._wait_for, self._services.ask)
        return events.Prepared(self._ref, effect.turn, self._services.wall())

    def _start(self, effect: effects.StartProgram) -> asyncio.Future[None] | None:
        """Have the program started: without a task where all is prepared, or is about to be."""
        leased = effect.assignment.job.placement is Placement.AT_MOST_ONE_RUNNING
        ready = None if leased or self._is_working() else self._bench.ready()
        if ready is None:
            return self._begin(effect.turn, self._start_in_steps(effect), ReasonCode.START)
        self._wait = self._services.waits.begin(self._say_progress, _STARTING)
        work = self._work = asyncio.get_running_loop().create_future()
        if ready.done():
            self._ask_for_start(effect, work, ready)
        else:
            ready.add_done_callback(partial(self._ask_for_start, effect, work))
        return None

    def _ask_for_start(
        self,
        effect: effects.StartProgram,
        work: asyncio.Future[None],
        ready: asyncio.Future[StartRequest | None],
    ) -> None:
        if work.done() or ready.cancelled():
            return  # it was given up
        begun: asyncio.Future[Any] | None = None
        error = ready.exception()
        try:
            request = None if error is not None else ready.result()
            if request is not None:
                self._bench.begins()
                begun = self._services.keeper.begin(request, effect.keeper)
        except Exception as raised:  # noqa: BLE001 - the root of one attempt's work: its failure is its own
            error = raised
        if begun is not None:
            begun.add_done_callback(partial(self._begun, effect, work))
        elif error is not None:
            self._started(effect, work, error)
        else:
            self._end_work(work)
            self._begin_now(effect.turn, self._start_in_steps(effect), ReasonCode.START)

    def _begun(
        self,
        effect: effects.StartProgram,
        work: asyncio.Future[None],
        begun: asyncio.Future[Any],
    ) -> None:
        error = None if begun.cancelled() else begun.exception()
        if not work.done() and not begun.cancelled():
            self._started(effect, work, error)

    def _started(
        self, effect: effects.StartProgram, work: asyncio.Future[None], error: BaseException | None
    ) -> None:
        """Tell what came of a start."""
        services, ref = self._services, self._ref
        self._end_work(work)
        outcome: events.AttemptEvent
        if error is None:
            services.logs.follow(ref, self._folder.text, services.mask(ref))
            outcome = events.ProgramStarted(ref, effect.turn, services.wall())
        elif isinstance(error, Exception):
            outcome = self._failed(effect.turn, error, ReasonCode.START)
        else:
            services.spawn(_raise(error))
            return
        if not services.offer(outcome):
            services.spawn(_all_of(services.post(outcome)))

    def _end_work(self, work: asyncio.Future[None]) -> None:
        work.set_result(None)
        self._work = None
        if self._wait is not None:
            self._services.waits.end(self._wait)
            self._wait.end()

    async def _start_in_steps(self, effect: effects.StartProgram) -> events.AttemptEvent:
        services, assignment = self._services, effect.assignment
        request = await self._bench.plan(assignment, self._say_build)
        if assignment.job.placement is Placement.AT_MOST_ONE_RUNNING:
            self._wait_for(
                "this node has no lease, without which a job that is at_most_one_running does not "
                "start: until the controller renews it"
            )
            await self._start_leased(request, effect.keeper)
        else:
            self._wait_for(_STARTING)
            await services.keeper.start(request, effect.keeper)
        services.logs.follow(self._ref, self._folder.text, services.mask(self._ref))
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

    def left_nothing(self, assignment: Assignment) -> bool:
        """Whether a look shows that a program that has just ended left neither files nor words."""
        if self._is_working() or not self._bench.left_nothing(assignment):
            return False
        self._services.logs.unfollow(self._ref)
        return True

    def _look(self, effect: effects.CollectArtifacts) -> asyncio.Future[None] | None:
        """Find what is archived: at once where a program has left nothing at all, which a look at its folder shows."""
        if self.left_nothing(effect.assignment):
            nothing = events.ArtifactsCollected(self._ref, effect.turn, ())
            if self._services.offer(nothing):
                return None
        return self._begin(effect.turn, self._collect(effect), ReasonCode.ARCHIVE)

    async def _collect(self, effect: effects.CollectArtifacts) -> events.AttemptEvent:
        self._wait_for("its results are being found and hashed, until the last of them is")
        held = self._services.contents
        begun = self._services.wall()
        found = await self._bench.collect(
            effect.assignment, succeeded=effect.succeeded, contents=held.wanted
        )
        held.hold(self._ref, found.contents)
        return events.ArtifactsCollected(
            self._ref,
            effect.turn,
            found.artifacts,
            found.problem,
            found.parts,
            begun,
            self._services.wall(),
        )

    async def _upload(self, effect: effects.Upload) -> events.AttemptEvent:
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

    # ---- in the line

    async def _stop(self, grace_seconds: float) -> None:
        # A keeper that is gone has taken the program with it.
        with contextlib.suppress(KeeperError):
            await self._services.keeper.stop(keeper_id(self._ref), grace_seconds)

    async def _attach(self, assignment: Assignment) -> None:
        try:
            await self._services.streams.attach(assignment, self._folder)
        except StreamsError as error:
            # The loss of worker or keeper is told, too, and this may come before it: it says the same.
            gone = isinstance(error, StreamsGoneError)
            code = ReasonCode.LOST if gone else ReasonCode.STREAM
            words = f"the stream worker does not take the ports: {error}"
            await self._services.post(events.StreamsBroken(self._ref, Reason(code, 0, words)))

    def _order(self) -> None:
        if self._ordering is None:
            self._ordering = self._services.spawn(self._orders.run())

    def _report(self, observation: Observation) -> asyncio.Future[None] | None:
        services, ref = self._services, self._ref
        if observation.state.terminal:
            services.contents.drop(ref)
        if observation.state.terminal and (
            services.workshop.holds(ref) or not services.logs.is_finished(ref)
        ):
            return services.spawn(self._report_end(observation))
        self._note(observation)
        return self._say(observation)

    async def _report_end(self, observation: Observation) -> None:
        await self._services.workshop.ended(self._ref)
        # What a program said last should be there when a person reads that it has ended.
        await self._services.logs.finish(self._ref, _LAST_LOGS_SECONDS)
        self._note(observation)
        await self._services.say(observation)

    def _note(self, observation: Observation) -> None:
        # Most attempts succeed, and the controller says so: what did not is worth a line here.
        state = observation.state
        level = (
            logging.INFO if state.terminal and state is not JobState.SUCCEEDED else logging.DEBUG
        )
        if LOG.isEnabledFor(level):
            said = fields(
                name=self._ref.name,
                epoch=self._ref.epoch,
                state=state.name,
                reason=observation.reason.short,
                message=observation.reason.message,
            )
            LOG.log(level, "attempt", extra=said)

    def _forget_at_once(self) -> bool:
        """Leave nothing of an attempt of which nothing but its folder is left; say whether that is on its way.

        The keeper is not waited for: a program that ended well has left nothing that it had to end.
        """
        services, ref = self._services, self._ref
        if self._is_working() or self._ordering is not None or services.workshop.holds(ref):
            return False
        if not services.logs.is_finished(ref) or not services.keeper.drop(keeper_id(ref)):
            return False
        thrown = self._bench.throw_at_once()
        if thrown is None:
            return False
        services.contents.drop(ref)
        thrown.add_done_callback(self._thrown)
        return True

    def _thrown(self, thrown: asyncio.Future[bool]) -> None:
        if thrown.cancelled():
            return  # the agent ends
        if thrown.exception() is not None or not thrown.result():
            self._services.spawn(self._forget(has_ports=False, keep=False))
            return
        self._services.journal.forget(self._ref)
        self._forgotten(self._ref, False)

    async def _forget(self, *, has_ports: bool, keep: bool) -> None:
        await self._give_up()
        services = self._services
        services.contents.drop(self._ref)
        if self._ordering is not None:
            self._ordering.cancel()
        detached = not has_ports or await self._orders.detach()
        with contextlib.suppress(KeeperError):
            await services.keeper.forget(keeper_id(self._ref))
        if services.workshop.holds(self._ref):
            await services.workshop.ended(self._ref)
        if not services.logs.is_finished(self._ref):
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
        # Not waited for: a restart that still finds it has it forgotten again.
        services.journal.forget(self._ref)
        self._forgotten(self._ref, keep)


async def _raise(error: BaseException) -> None:
    raise error


async def _all_of(posting: Awaitable[None]) -> None:
    await posting


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
        case BundleRefusedError():
            return ReasonCode.BUNDLE
        case KeeperError() | ProgramError() | OSError():
            return expected
        case _:
            return None


def _clip(words: str) -> str:
    """At most so much of an installer's words: their end says what was wrong."""
    return words if len(words) <= _WORDS_MAX else "… " + words[-_WORDS_MAX:]
