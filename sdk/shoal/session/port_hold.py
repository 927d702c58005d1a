"""A hold: an output port that stands still, so that the controller learns how far it is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortHold:
    """How far an output port is that stands still.

    `number` is that of the hold (`Lane.hold`). `held_at` is the number, counted from 0, of the first
    record that no consumer of the port may have: an upper bound that is not among them. With `ended`
    the port has ended there, and nothing comes when the hold is over.
    """

    port: str
    number: int
    held_at: int
    ended: bool = False
