"""What Serf's layer asks for besides the effects of membership."""

from __future__ import annotations

from dataclasses import dataclass

from services.membership import event as core
from services.membership.serf.message import UserEvent


@dataclass(frozen=True, slots=True)
class EventHeard:
    """A user event reached this member, for the first time."""

    event: UserEvent


SerfEffect = core.Effect | EventHeard
