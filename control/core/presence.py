"""Whether a node takes part, as it was told to the world last."""

import enum


class Presence(enum.StrEnum):
    """What was told of a node last; a silence within its lease changes nothing."""

    UNTOLD = ""
    UP = "up"
    """Its agent has a session."""
    DOWN = "down"
    """Its lease ran out."""
    LEFT = "left"
    """Its lease ran out, and gossip says that it said good-bye."""
