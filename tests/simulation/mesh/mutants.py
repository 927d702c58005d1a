"""Twelve mistakes that the mesh has to find, each planted in a process of its own.

A mistake is a small change of the product's own code, made while the histories run and nowhere
else. A simulation that does not find one of them proves less than it says.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from control.core.errors import ControlError
from control.core.observations import Observations
from control.core.rows import OutboxRow, Row
from control.core.state import NodeRecord
from control.front.control_plane import ControlPlane
from edge_agent.attempts import shell as attempt_shell
from edge_agent.attempts.effects import StartProgram, UpdateLanes
from edge_agent.attempts.machine import _ARCHIVED, AttemptsMachine
from edge_agent.attempts.phase import Phase
from services.archive.artifact_key import artifact_key
from services.events.entry import OutboxEntry
from services.events.outbox import shell as outbox_shell
from services.events.outbox.events import PublishAcknowledged
from services.streams import attempt_output, machine, sender
from services.streams.effects import Effect
from services.streams.events import CallOpened
from tests.simulation.mesh.board import Board
from tests.simulation.mesh.controller import MemoryStore
from tests.simulation.mesh.keeper import MemoryKeeper
from tests.simulation.mesh.story import HARD_ON_LANES, Faults


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake; `plant` makes it in this process, for good.

    `faults` are those that bring it to light; None for those of any history.
    """

    name: str
    plant: Callable[[], None]
    faults: Faults | None = None


def _set(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)


def _no_epoch_check() -> None:
    """What an attempt says counts for its job, whichever attempt is the current one."""
    right = Observations.observe

    def observe(self: Observations, node: NodeRecord, seen: Any) -> Any:
        job = self._cluster.job(seen.ref)
        if job is not None and job.attempt is not None and not job.ended:
            self.advance(self._situation.pipeline_of(job), job, seen)
            return None
        return right(self, node, seen)

    _set(Observations, "observe", observe)


def _acknowledge_before_commit() -> None:
    """An agent is told that its observation is recorded while that is only on its way."""
    right = ControlPlane.observe

    async def observe(
        self: ControlPlane, node: str, session_id: str, observations: Sequence[Any]
    ) -> Sequence[Any]:
        async def later() -> None:
            with contextlib.suppress(ControlError):
                await right(self, node, session_id, observations)

        asyncio.get_running_loop().create_task(later())
        return ()

    _set(ControlPlane, "observe", observe)


def _event_before_commit() -> None:
    """Events become durable in a transaction of their own, before what they tell of."""
    right = MemoryStore.commit

    async def commit(self: MemoryStore, rows: Sequence[Row]) -> None:
        events = [one for one in rows if isinstance(one, OutboxRow) and one.is_told]
        if events:
            await right(self, events)
        await right(self, [one for one in rows if one not in events])

    _set(MemoryStore, "commit", commit)


def _lease_by_wall_clock() -> None:
    """A board reckons its lease by a clock that people set."""

    def clock(self: Board) -> float:
        return self.loop.time() + self.skew_seconds

    _set(Board, "clock", clock)


def _replay_from_the_wrong_record() -> None:
    """A producer that is dialled again goes on one record after the one that is wanted."""
    right = sender.SendLane.answer

    def answer(self: sender.SendLane, own_epoch: int) -> list[Effect]:
        held = self.held
        if held is not None and 0 < held.want < self.log.next:
            self.held = replace(held, want=held.want + 1)
        return right(self, own_epoch)

    _set(sender.SendLane, "answer", answer)


def _released_before_committed() -> None:
    """A consumer that would be restarted lets its producers go of what it was given."""
    right = machine.AttemptStreamsMachine._release_inputs

    def release(self: machine.AttemptStreamsMachine) -> None:
        for in_port in self._inputs.values():
            in_port.release(in_port.acknowledged_rounds * in_port.plan.block_count)
        right(self)

    _set(machine.AttemptStreamsMachine, "_release_inputs", release)


def _hold_lost() -> None:
    """A port that has said where it stands still goes on all the same."""
    right = attempt_output.AttemptOutput._stands_at

    def stands_at(self: attempt_output.AttemptOutput) -> int | None:
        stands = right(self)
        if stands is not None:
            self._hold = 0
        return stands

    _set(attempt_output.AttemptOutput, "_stands_at", stands_at)


def _stale_lane_update() -> None:
    """Lanes of before are applied after those of now."""
    right = attempt_shell.AttemptShell._perform
    before: dict[Any, Any] = {}

    def perform(self: attempt_shell.AttemptShell, effect: Any) -> Any:
        held = right(self, effect)
        if isinstance(effect, UpdateLanes):
            if effect.ref in before:
                right(self, before[effect.ref])
            before[effect.ref] = effect
        return held

    _set(attempt_shell.AttemptShell, "_perform", perform)


def _resend_after_fenced() -> None:
    """A producer takes the calls of consumers whose epoch is over, and goes on sending to them."""
    right = sender.SendLane.opened

    def opened(self: sender.SendLane, event: CallOpened, own_epoch: int) -> list[Effect]:
        return right(
            self,
            replace(
                event,
                producer_epoch=own_epoch,
                consumer_epoch=max(event.consumer_epoch, self.peer.epoch),
            ),
            own_epoch,
        )

    _set(sender.SendLane, "opened", opened)


def _manifest_before_artifacts() -> None:
    """An agent says that it has archived before the archive has said so."""
    machine = AttemptsMachine
    right = machine._collected

    def collected(self: Any, record: Any, found: Any) -> list[Any]:
        effects: list[Any] = right(self, record, found)
        record = self._records[record.ref]
        if record.phase is Phase.GRANTING and not record.keeping_logs:
            stored = tuple(
                replace(one, key=artifact_key(record.ref, one.path)) for one in found.artifacts
            )
            effects = self._end(record._replace(artifacts=stored), _ARCHIVED)
        return effects

    _set(machine, "_collected", collected)


def _outbox_row_deleted_early() -> None:
    """An event is let go of before the broker has acknowledged it."""
    right = outbox_shell.OutboxShell._publish

    async def publish(
        self: outbox_shell.OutboxShell, entry: OutboxEntry, losses: int, link: Any
    ) -> None:
        await self._driver.post(PublishAcknowledged(entry.sequence))
        await right(self, entry, losses, link)

    _set(outbox_shell.OutboxShell, "_publish", publish)


def _journal_replayed_twice() -> None:
    """An agent that starts does what its journal says again, and no keeper knows that it was done."""
    machine = AttemptsMachine
    right = machine._resume_program
    start = MemoryKeeper.start_program

    def resume(self: Any, record: Any, program: Any, event: Any) -> list[Any]:
        again = StartProgram(record.assignment, record.turn, event.keeper)
        return [again, *right(self, record, program, event)]

    async def start_program(self: Any, request: Any, *, helper: bool) -> int:
        known = self._machine.record(request.attempt)
        if known is not None and known.running and not helper:
            self._machine._kept.pop(request.attempt)
        return await start(self, request, helper=helper)

    _set(machine, "_resume_program", resume)
    _set(MemoryKeeper, "start_program", start_program)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("no-epoch-check", _no_epoch_check),
    Mutant("acknowledge-before-commit", _acknowledge_before_commit),
    Mutant("event-before-commit", _event_before_commit),
    Mutant("lease-by-wall-clock", _lease_by_wall_clock),
    Mutant("replay-from-the-wrong-record", _replay_from_the_wrong_record),
    Mutant("released-before-committed", _released_before_committed),
    Mutant("hold-lost", _hold_lost),
    Mutant("stale-lane-update", _stale_lane_update),
    Mutant("resend-after-fenced", _resend_after_fenced, HARD_ON_LANES),
    Mutant("manifest-before-artifacts", _manifest_before_artifacts),
    Mutant("outbox-row-deleted-early", _outbox_row_deleted_early),
    Mutant("journal-replayed-twice", _journal_replayed_twice),
)
"""All of them; `make sim-mutants` tells which seed finds each."""
