"""The shape of every core: events and time go in, effects come out."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

EventT_contra = TypeVar("EventT_contra", contravariant=True)
EffectT_co = TypeVar("EffectT_co", covariant=True)


class Machine(Protocol[EventT_contra, EffectT_co]):
    """A pure state machine: it decides, and a shell acts.

    Times are seconds on one monotonic clock that the caller chooses; a machine never looks at a
    clock itself. Events and effects are frozen, slotted dataclasses in closed unions. The order of
    the effects is contract: record, then act. The outcome of an effect comes back as an event.
    A caller's mistake raises; what a peer does wrong is a counted drop.
    """

    def handle(self, event: EventT_contra, now: float) -> Sequence[EffectT_co]:
        """Take one event and return what is to be done about it, in order."""
        ...

    def tick(self, now: float) -> Sequence[EffectT_co]:
        """Do what fell due at or before `now`; harmless when nothing did."""
        ...

    def deadline(self) -> float | None:
        """Return when `tick` is next wanted, or None while nothing is waited for."""
        ...
