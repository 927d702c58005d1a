"""The leader: the asyncio shell around the control machine, with inbox, group commit, then the acts.

`run` takes everything that waits, lets the machine decide, commits all its rows in one transaction
and only then acts: shows the projections what changed, and answers callers. So nothing is seen that is not recorded.

If the store fails, nothing of the batch has happened: its callers are told, sessions and watches
end, and the machine is built anew from what the store does remember as soon as it can be written
again. Until then every request is refused with the store's own reason.

A start reads what runs and the first page of the queue, and the rest of the queue a page before each step.
A step that needs all of it waits for the rest: it takes a submission, which goes behind all others, or names
a pipeline that is not in memory.

If an event makes the machine raise, or asks for a row that no store can hold, the mistake is ours
and the machine is half changed. It is built anew too, and the events of the batch are taken again
one by one: the culprit's caller gets the error, all others their answers. A node whose messages do
that is set aside for longer and longer, and so is the building anew itself.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from control.core import errors, events
from control.core.effects import Answer, AnswerValue, CommitRows
from control.core.machine import ControlMachine
from control.core.rows import Loaded, Queued, Row
from control.leader.calls import Calls
from control.leader.inbox import Inbox
from control.leader.plane_config import PlaneConfig
from control.leader.projection import Projection
from control.leader.recorded_objects import RecordedObjects
from control.store.store import Store
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.names import PipelineRef

LOG = logging.getLogger(__name__)

ID_CHARACTERS = 16
"""Of the random ids of a cluster and of a start."""

REBUILD_BACKOFF = Backoff(0.5, 30.0, jitter=0.0)
"""How long the machine is not built anew again after it was, so that one node cannot keep it busy."""

SET_ASIDE_BACKOFF = Backoff(5.0, 600.0, jitter=0.0)
"""How long a node is refused whose messages made the machine raise."""

QUEUE_SECONDS = 10.0
"""How long a question of a person waits for the queue to be read."""

REBUILDS_FORGOTTEN_SECONDS = 600.0

_ASKED: Final = frozenset(
    {
        events.Submit,
        events.Cancel,
        events.Scale,
        events.Drain,
        events.Adopt,
        events.CreateToken,
        events.RevokeToken,
        events.Join,
        events.Renew,
        events.RevokeIdentity,
        events.CallMade,
        events.CallsRefused,
    }
)
"""What people ask for: they wait for an answer, and are told when there is none."""


class Leader:
    """Drives the control machine: `load`, then `run`, then `close`.

    Args:
        store: Where everything is written down; it stays its owner's.
        config: What may be set.
        clock: Seconds on a monotonic clock.
        wall: The wall clock, aware and in UTC.
        ids: Makes a random id of so many characters, `[a-z0-9]`.
        projections: What shows the commits, in the order in which it is called.
    """

    def __init__(
        self,
        *,
        store: Store,
        config: PlaneConfig,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        ids: Callable[[int], str],
        projections: Sequence[Projection],
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._wall = wall
        self._ids = ids
        self._projections = projections
        self.outbox_grown = asyncio.Event()
        """Set after each commit that added outbox rows; the publisher clears it."""
        self.objects = RecordedObjects()
        """What was recorded for the archive."""
        self.spans_wait = asyncio.Event()
        """Set after each commit that added spans; what exports them clears it."""
        self.began_at = clock()
        """When this controller began to lead, in seconds of the clock."""
        self.machine: ControlMachine | None = None
        """The machine as it is committed or about to be; None while there is none."""
        self.inbox = Inbox(config.batch_max)
        self._calls = Calls(self.inbox, config.calls_max, self.check_open)
        self._broken: errors.ControlError | None = None
        # Why a batch without a caller cannot be recorded now, and why nothing new is taken.
        self._held: errors.StoreFailedError | None = None
        self._short: errors.StoreFailedError | None = None
        # Up to which position the queue was read; None once that is all of it.
        self._read_up_to: int | None = None
        self._queue_read = asyncio.Event()
        self._retry = Backoff(
            config.store_retry_seconds, 16 * config.store_retry_seconds, jitter=0.0
        )
        self._store_failures = 0
        self._rebuilds = 0
        self._rebuilt_at = 0.0
        # For each node whose messages made the machine raise: how often, and until when it waits.
        self._set_aside: dict[str, tuple[int, float]] = {}
        self._closing = False
        # How many open pipelines there were when the collector was told to pass over what there is.
        self._frozen = 0

    async def run(self) -> None:
        """Drive until cancelled.

        Raises:
            TermOverError: Another controller leads now; all callers and followers were let go.
        """
        try:
            while True:
                if self.machine is None:
                    await self._recover()
                else:
                    if not self.inbox:
                        await self.inbox.wait(self._wait_seconds(self.machine))
                    await self._step(self.machine)
                # One turn for all other tasks, even when the inbox is never empty.
                await asyncio.sleep(0)
        finally:
            self.close()

    async def call(self, make: Callable[[int], events.Event]) -> AnswerValue:
        """Post one event; returns its answer once it is recorded.

        Raises:
            ControlError: It is refused, or could not be recorded.
        """
        (value,) = await self._calls.ask([make])
        if isinstance(value, errors.ControlError):
            raise value
        return value

    async def call_all(
        self, makes: Sequence[Callable[[int], events.Event]]
    ) -> Sequence[AnswerValue]:
        """Post events; returns their answers, in order, once they are recorded."""
        return await self._calls.ask(makes)

    def heartbeat(self, node: str, session_id: str) -> bool:
        """Renew a lease at once, even while a commit is under way; says whether the session lives."""
        if self.machine is None:
            return False
        return self.machine.heard(node, session_id, self._clock())

    def check_recording(self, *, grows: bool = False) -> None:
        """Refuse what a person asks for while it could not be recorded, or has no room to grow."""
        why = self._held or (self._short if grows else None)
        if why is not None:
            raise type(why)(str(why))

    def refuse_new(self, why: errors.StoreFailedError | None) -> None:
        """Refuse whatever makes the store grow, for this reason; None for taking it again."""
        if (why is None) != (self._short is None):
            words = "nothing new is taken" if why else "new requests are taken again"
            LOG.warning(words, extra=fields(why=why or ""))
        self._short = why

    def check_open(self) -> None:
        """Refuse everything while there is no machine, or the end is near."""
        if self._closing:
            raise errors.ClosingError("the control plane is shutting down: try again in a moment")
        if self._broken is not None:
            raise type(self._broken)(str(self._broken))

    async def know(self, ref: PipelineRef) -> ControlMachine:
        """Return the machine once it has a pipeline in memory, if the store has it.

        Raises:
            ControlError: There is no machine for now, or the store cannot be read.
        """
        machine = self.open_machine()
        if machine.memory.has(ref):
            return machine
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._queue_read.wait()
        except TimeoutError:
            raise errors.ClosingError(
                f"pipeline {ref.name} cannot be looked up: the control plane still reads its queue; "
                "try again in a moment"
            ) from None
        self.open_machine()
        found = await self._store.find([ref])
        machine = self.open_machine()
        machine.memory.learn(found)
        return machine

    def open_machine(self) -> ControlMachine:
        """Return the machine.

        Raises:
            ControlError: there is none for now.
        """
        self.check_open()
        if self.machine is None:
            raise errors.ClosingError("the control plane has not begun: enter it with `async with`")
        return self.machine

    def check_set_aside(self, node: str) -> None:
        """Refuse a node whose messages met a mistake of the controller.

        Raises:
            InternalError: The node waits until it may try again.
        """
        failures, until = self._set_aside.get(node, (0, 0.0))
        if self._clock() < until:
            raise errors.InternalError(
                f"node {node} is set aside for {until - self._clock():.0f} s: {failures} of "
                "its messages met a mistake of the controller, whose log has it: report it"
            )

    # --- the loop

    def _wait_seconds(self, machine: ControlMachine) -> float | None:
        if self._read_up_to is not None:
            return 0.0
        deadline = machine.deadline()
        return None if deadline is None else deadline - self._clock()

    async def _step(self, machine: ControlMachine) -> None:
        """Take what waits, decide, record, act."""
        batch = tuple(self.inbox.take())
        try:
            await self._read_on(machine)
            await self._perform(machine, batch)
        except errors.TermOverError:
            raise
        except (errors.StoreFailedError, errors.RebuildingError) as error:
            self._fail(error)
        except Exception as error:  # the event is found, or no caller would ever be answered
            LOG.exception("a batch could not be taken", extra=fields(events=len(batch)))
            await self._one_by_one(batch, error)

    async def _perform(self, machine: ControlMachine, batch: Sequence[events.Event]) -> None:
        """Decide, record, act.

        Raises:
            RebuildingError: It is recorded, and what follows from that was not done.
            Exception: Anything else, and nothing is recorded.
        """
        kinds = {type(event) for event in batch}
        refs, requests = machine.prepare(batch)
        more = False
        if refs or requests or events.Submit in kinds:
            while await self._read_on(machine):
                more = True
        if more:
            refs, requests = machine.prepare(batch)
        if refs or requests:
            machine.memory.learn(await self._store.find(refs, requests))
        effects = machine.step(batch, self._clock())
        commit = effects[0] if effects and isinstance(effects[0], CommitRows) else None
        if commit is not None:
            await self._record(commit.rows, waited_for=not _ASKED.isdisjoint(kinds))
        try:
            for projection in self._projections:
                projection.show(machine, effects)
            for effect in effects:
                if isinstance(effect, Answer):
                    self._calls.answer(effect.call, effect.value)
        except Exception as error:
            LOG.exception("what is recorded could not be shown")
            raise _rebuilding(error) from error
        if commit is not None and commit.tells:
            self.outbox_grown.set()
            self.objects.add(commit.objects, commit.through)
        if commit is not None and commit.traces:
            self.spans_wait.set()
        self._keep_from_collector(machine.open_pipelines)

    def _keep_from_collector(self, open_pipelines: int) -> None:
        """Have the collector pass over a queue that has grown by a page: a look at all of 20,000 takes 100 ms."""
        self._frozen = min(self._frozen, open_pipelines)
        if open_pipelines - self._frozen >= self._config.queue_page:
            gc.collect(1)  # what is garbage by now would stay
            gc.freeze()
            self._frozen = open_pipelines

    async def _record(self, rows: Sequence[Row], *, waited_for: bool) -> None:
        """Write rows; where no person waits, for as long as the store's disk takes.

        Sessions and leases go on meanwhile, people are refused at the door, and nothing is done that
        is not recorded.
        """
        failures = 0
        while True:
            try:
                await self._store.commit(rows)
                break
            except errors.StoreFailedError as error:
                if waited_for:
                    raise
                failures += 1
                self._held = error
                if failures == 1:
                    LOG.error("the store waits for its disk", extra=fields(error=str(error)))  # noqa: TRY400 -- the message says it all
                await asyncio.sleep(self._retry.delay_seconds(failures, 0.0))
        if failures:
            self._held = None
            LOG.info("store works again", extra=fields(failures=failures))

    async def _one_by_one(self, batch: Sequence[events.Event], error: Exception) -> None:
        """Build the machine anew, and take the events of a batch that failed, but for the culprit.

        The time alone may be the culprit; then no event is blamed.
        """
        try:
            machine = await self._rebuild(error)
            await self._perform(machine, ())
            if len(batch) == 1:
                self._leave_out(batch[0], error)
                return
            for event in batch:
                try:
                    await self._perform(machine, (event,))
                except (errors.StoreFailedError, errors.RebuildingError, errors.TermOverError):
                    raise
                except Exception as culprit:
                    what = type(event).__name__
                    LOG.exception("an event was left out", extra=fields(event=what))
                    self._leave_out(event, culprit)
                    machine = await self._rebuild(culprit)
        except errors.TermOverError:
            raise
        except (errors.StoreFailedError, errors.RebuildingError) as failed:
            self._fail(failed)
        except Exception as still:
            LOG.exception("the control plane cannot go on for now")
            self._fail(_rebuilding(still))

    async def _rebuild(self, error: Exception) -> ControlMachine:
        """Forget the machine that was left half changed, and build it from what is recorded."""
        self.machine = None
        self._broken = _rebuilding(error)
        self._cut_off(self._broken)
        now = self._clock()
        calm = now - self._rebuilt_at > REBUILDS_FORGOTTEN_SECONDS
        self._rebuilds = 0 if calm else self._rebuilds + 1
        await asyncio.sleep(REBUILD_BACKOFF.delay_seconds(self._rebuilds, 0.0))
        self._rebuilt_at = self._clock()
        return await self.load()

    def _leave_out(self, event: events.Event, error: Exception) -> None:
        """Answer the caller of an event that cannot be taken, and set its node aside."""
        if isinstance(event, events.Call):
            self._calls.fail(event.call, _mistake(error))
        node = event.hello.node if isinstance(event, events.HelloReceived) else ""
        if isinstance(event, events.Observed | events.Progressed | events.Conditioned):
            node = event.node
        if node:
            failures = self._set_aside.get(node, (0, 0.0))[0] + 1
            until = self._clock() + SET_ASIDE_BACKOFF.delay_seconds(failures, 0.0)
            self._set_aside[node] = (failures, until)

    # --- beginning, failing, ending

    async def load(self) -> ControlMachine:
        """Build the machine from the store, and let everything be shown anew."""
        # In threads, since it may take a while: sessions, gossip and calls go on meanwhile.
        with _without_collections():
            loaded = await self._store.load(
                lambda: self._ids(ID_CHARACTERS), self._config.queue_page
            )
            machine = await asyncio.to_thread(self._build, loaded)
        self._read_up_to = None
        self._queue_read.clear()
        self._note_read(loaded.queued)
        self.inbox.begin()
        self.machine = machine
        self._broken = None
        self.outbox_grown.set()  # what an earlier process left behind has to leave too
        self.objects.begin(loaded.next_sequence - 1)
        return machine

    async def _read_on(self, machine: ControlMachine) -> bool:
        """Read the next page of the queue, and say whether there was one; what nodes say waits meanwhile."""
        if self._read_up_to is None:
            return False
        began = self._clock()
        with _without_collections():
            queued = await self._store.queued(self._read_up_to, self._config.queue_page)
            machine.line_up(queued)
        machine.forgive(self._clock() - began)
        self._note_read(queued)
        return True

    def _note_read(self, queued: Sequence[Queued]) -> None:
        if len(queued) < self._config.queue_page:
            if self._read_up_to is not None:
                gc.freeze()  # a queue of several pages is no garbage for a long time
            self._read_up_to = None
            self._queue_read.set()
            self._store_failures = 0
        else:
            self._read_up_to = queued[-1].position

    def _build(self, loaded: Loaded) -> ControlMachine:
        machine = ControlMachine(
            self._config, loaded, self._clock(), wall=self._wall, ids=self._ids
        )
        for projection in self._projections:
            projection.begin(machine)
        return machine

    def _fail(self, error: errors.ControlError) -> None:
        """Nothing of this batch has happened: forget the machine that thinks it has."""
        LOG.error("the control plane is away", extra=fields(error=str(error)))
        self.machine = None
        self._broken = error
        self._let_go(error)

    def _let_go(self, error: errors.ControlError) -> None:
        self.inbox.clear()
        self._calls.fail_all(error)
        self._queue_read.set()  # callers that wait for the queue get the error
        self._cut_off(error)

    def _cut_off(self, error: errors.ControlError) -> None:
        for projection in self._projections:
            projection.cut_off(error)

    async def _recover(self) -> None:
        self._store_failures += 1
        await asyncio.sleep(self._retry.delay_seconds(self._store_failures, 0.0))
        try:
            await self.load()
        except errors.StoreFailedError as error:
            self._broken = error
            LOG.error("store still fails", extra=fields(error=str(error)))  # noqa: TRY400 -- the message says it all
        except errors.TermOverError:
            raise
        except Exception as error:  # the next try, a little later, may fare better
            self._broken = _rebuilding(error)
            LOG.exception("the control plane cannot be built")
        else:
            LOG.info("store works again")

    def close(self) -> None:
        """Let go of all callers and followers."""
        if not self._closing:
            self._closing = True
            self._let_go(
                errors.ClosingError("the control plane is shutting down: try again in a moment")
            )


@contextmanager
def _without_collections() -> Iterator[None]:
    """Make much without looking for garbage: a full collection stops all threads."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _mistake(error: Exception) -> errors.InternalError:
    return errors.InternalError(
        f"the controller could not take this ({type(error).__name__}: {error}), and nothing of it "
        "has happened: this is a mistake of the controller, so report it with its log"
    )


def _rebuilding(error: Exception) -> errors.RebuildingError:
    return errors.RebuildingError(
        f"the control plane is built anew from its store after a mistake of its own "
        f"({type(error).__name__}: {error}): try again in a moment"
    )
