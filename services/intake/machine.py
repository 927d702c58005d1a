"""What becomes of each message: submitted, tried again, put aside; deleted last of all.

Rule. A message is deleted only after everything that it asks for is committed, or after the dead-letter
queue has it. A message that is refused (it cannot be read, or the specification made of it is no good)
has had a try; after `tries_max` of them it is put aside with the last reason. A server that is away says
nothing about a message, so no outage counts, however long it lasts.

Invariants: a try is recorded before its consequence; a message has one thing under way at a time; a
source delivers at most as many messages as were let go of and it may hold.

Why tries are counted here and not taken from SQS: its ApproximateReceiveCount rises with each delivery,
also when the controller was away, and a redrive policy would put aside what was not refused.

Example: a text that is no JSON is refused at 0, 1, 3, 7 and 15 s (each wait has its share of chance),
goes to the dead-letter queue, and is deleted. A good one that comes while the controller is away for an
hour stays with its source, hidden from others, and is submitted once the controller is back; if this
process is killed after the commit and before the deletion, the message comes again with the same id, the
controller knows the request, and it is deleted then.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.intake import effects, events
from services.intake.message import IncomingMessage, MessageReading, UnreadableMessageError
from services.intake.reader import read_message
from shoal.backoff import Backoff


@dataclass(frozen=True, slots=True)
class IntakePatience:
    """How patient the intake is.

    Attributes:
        tries_max: how often a message may be refused before it is put aside.
        try_pause: how long to wait after a refusal.
        away_pause: how long to wait for a server that is away.
        hidden_seconds: how long a source keeps a delivery from others; asked for again in half of it.
    """

    tries_max: int = 5
    try_pause: Backoff = Backoff(1.0, 60.0, jitter=0.5)  # noqa: RUF009 - frozen, as any value
    away_pause: Backoff = Backoff(0.5, 30.0)  # noqa: RUF009
    hidden_seconds: float = 60.0


@dataclass(slots=True)
class _Held:
    """One message between its arrival and its deletion.

    `next` is what is to be done for it, again if it fails; `due` is when, and infinite while it is under way.
    """

    message: IncomingMessage
    tries: int
    reason: str
    hide_at: float
    next: effects.IntakeEffect | None = None
    due: float = math.inf
    away: int = 0


class IntakeMachine:
    """Decides for all messages of all sources.

    Args:
        patience: how patient it is.
    """

    def __init__(self, patience: IntakePatience) -> None:
        self._patience = patience
        self._held: dict[events.MessageKey, _Held] = {}

    @property
    def held(self) -> int:
        """How many messages are here."""
        return len(self._held)

    def handle(self, event: events.IntakeEvent, now: float) -> Sequence[effects.IntakeEffect]:
        """Take one event."""
        if isinstance(event, events.MessageArrived):
            return self._arrived(event, now)
        held = self._held.get(event.key)
        if held is None:  # its source took it back meanwhile
            return ()
        match event:
            case events.RequestCommitted(_, pipelines):
                told = effects.TellOutcome(held.message, "submitted", ", ".join(pipelines))
                return (told, *self._begin(held, effects.DeleteMessage(held.message)))
            case events.RequestRefused(_, reason, chance):
                return self._refused(held, reason, chance, now)
            case events.ServerAway(_, reason, chance):
                held.away += 1
                held.due = now + self._patience.away_pause.delay_seconds(held.away, chance)
                return (effects.TellOutcome(held.message, "waits", reason),)
            case events.MessageBuried():
                told = effects.TellOutcome(held.message, "put aside", held.reason)
                return (told, *self._begin(held, effects.DeleteMessage(held.message)))
            case events.MessageDeleted(_, receipt, lost):
                if receipt != held.message.receipt:  # it was delivered again meanwhile
                    return self._begin(held, effects.DeleteMessage(held.message))
                if lost:
                    return self._given_back(held)
                del self._held[event.key]
                forget = (effects.ForgetTries(held.message),) if held.tries else ()
                return (*forget, effects.LetGo(held.message))
            case events.MessageLost(_, receipt):
                return self._given_back(held) if receipt == held.message.receipt else ()

    def tick(self, now: float) -> Sequence[effects.IntakeEffect]:
        """Do again what was put off, and keep what is here hidden from others."""
        found: list[effects.IntakeEffect] = []
        for held in list(self._held.values()):
            if held.hide_at <= now:
                held.hide_at = now + self._patience.hidden_seconds / 2
                found.append(effects.KeepHidden(held.message))
            if held.due <= now:
                found += self._go_on(held, now)
        return found

    def deadline(self) -> float | None:
        """Say when the next of that is due."""
        return min((min(held.due, held.hide_at) for held in self._held.values()), default=None)

    def _arrived(self, event: events.MessageArrived, now: float) -> Sequence[effects.IntakeEffect]:
        message = event.message
        known = self._held.get(message.key)
        hide_at = now + self._patience.hidden_seconds / 2
        if (
            known is not None
        ):  # a second delivery, while the first is here: the newest receipt counts
            older, known.message, known.hide_at = known.message, message, hide_at
            if isinstance(known.next, effects.DeleteMessage):
                known.next = effects.DeleteMessage(message)
            return (effects.LetGo(older),)
        held = _Held(message, event.tries, event.reason, hide_at)
        self._held[message.key] = held
        if held.tries >= self._patience.tries_max:  # it ended before the message was put aside
            return self._begin(held, effects.BuryMessage(message, held.tries, held.reason))
        return self._try(held, 0.5, now)

    def _given_back(self, held: _Held) -> Sequence[effects.IntakeEffect]:
        """Leave a message to its source, which delivers it again; what was done for it is known then."""
        del self._held[held.message.key]
        told = effects.TellOutcome(held.message, "given back", "its source delivers it again")
        return (told, effects.LetGo(held.message))

    def _try(self, held: _Held, chance: float, now: float) -> Sequence[effects.IntakeEffect]:
        """Read a message, and begin what it asks for."""
        try:
            reading = read_message(held.message)
        except UnreadableMessageError as error:
            return self._refused(held, str(error), chance, now)
        return self._ask(held, reading)

    def _ask(self, held: _Held, reading: MessageReading) -> Sequence[effects.IntakeEffect]:
        message = held.message
        if reading.requests:
            return self._begin(held, effects.SubmitRequests(message, reading.requests))
        if reading.question is not None:
            return self._begin(held, effects.AnswerQuestion(message, reading.question))
        told = effects.TellOutcome(message, "dropped", reading.remark)
        return (told, *self._begin(held, effects.DeleteMessage(message)))

    def _refused(
        self, held: _Held, reason: str, chance: float, now: float
    ) -> Sequence[effects.IntakeEffect]:
        held.tries += 1
        held.reason = reason
        recorded = effects.RecordTry(held.message, held.tries, reason)
        told = effects.TellOutcome(held.message, "refused", reason)
        if held.tries >= self._patience.tries_max:
            bury = effects.BuryMessage(held.message, held.tries, reason)
            return (recorded, told, *self._begin(held, bury))
        held.next, held.away = None, 0
        held.due = now + self._patience.try_pause.delay_seconds(held.tries, chance)
        return (recorded, told)

    def _go_on(self, held: _Held, now: float) -> Sequence[effects.IntakeEffect]:
        if held.next is None:
            return self._try(held, 0.5, now)
        held.due = math.inf
        return (held.next,)

    @staticmethod
    def _begin(held: _Held, effect: effects.IntakeEffect) -> Sequence[effects.IntakeEffect]:
        held.next, held.due, held.away = effect, math.inf, 0
        return (effect,)
