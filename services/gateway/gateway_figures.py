"""What a gateway tells of itself to Prometheus, read from what it counts and knows anyway."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import grpc

from services.gateway.door import Door
from services.gateway.gateway_counts import GatewayCounts
from services.gateway.session_file import SessionFile
from services.gateway.upstream import Upstream
from services.gateway.user_file import UserFile, UserFileError
from services.metrics.figure import OF_THE_PAGE, Figure, FigureKind, Readings
from shoal.version import VERSION

_G: Final = FigureKind.GAUGE
_C: Final = FigureKind.COUNTER
_CODES: Final = tuple(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
_REASONS: Final = (
    "CSRF", "NOT_ALLOWED", "OTHER_NAMESPACE", "QUOTA", "SIGN_IN", "TOKEN_UNKNOWN", "USERS",
)  # fmt: skip
"""Why a gateway refuses; a reason is told as 0 before the first time, so that its rise is seen."""

BUILD: Final = Figure(
    "shoal_build_info", _G, "Always 1; what runs, by its version.", ("component", "version")
)
CALLS: Final = Figure(
    "shoal_gateway_calls_total",
    _C,
    "Calls that were let in, by method of the contract or address of the dashboard.",
    ("method",),
    100,
)
REFUSED: Final = Figure(
    "shoal_gateway_calls_refused_total",
    _C,
    "Calls that the gateway refused by itself, by reason.",
    ("reason",),
    32,
)
FAILED: Final = Figure(
    "shoal_gateway_calls_failed_total",
    _C,
    "Calls that the controller refused or did not answer, by code.",
    ("code",),
    len(_CODES),
)
ANSWERED: Final = Figure(
    "shoal_gateway_answer_seconds",
    FigureKind.HISTOGRAM,
    "How long the controller took for calls that are answered once.",
)
WATCHES: Final = Figure("shoal_gateway_watches", _G, "Calls that last, and are open now.")
WATCHES_ENDED: Final = Figure(
    "shoal_gateway_watches_ended_total",
    _C,
    "Watches that were ended since what had let them in was good no more.",
)
MESSAGES: Final = Figure(
    "shoal_gateway_messages_total", _C, "Messages of watches that were passed on."
)
CONNECTIONS: Final = Figure(
    "shoal_gateway_connections", _G, "Connections of browsers and programs."
)
USERS: Final = Figure(
    "shoal_gateway_users", _G, "Users that may sign in; not there while their file cannot be read."
)
SESSIONS: Final = Figure("shoal_gateway_sessions", _G, "Sessions of browsers that are not over.")
IDENTITY_END: Final = Figure(
    "shoal_gateway_identity_end_timestamp_seconds",
    _G,
    "When its certificate at the controller ends, since 1970; not there without identity.",
)
GATEWAY_FIGURES: Final = (
    BUILD, CALLS, REFUSED, FAILED, ANSWERED, WATCHES, WATCHES_ENDED, MESSAGES, CONNECTIONS, USERS, SESSIONS,
    IDENTITY_END, *OF_THE_PAGE,
)  # fmt: skip
"""All that a gateway tells, but for what is said of its process (`process_*` and `python_gc_*`)."""


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """Reads the figures of a gateway.

    Args:
        counts: what it has counted.
        door: knows what is open.
        users: those of the gateway.
        sessions: those of browsers.
        upstream: knows its identity.
        connections: how many there are.
    """

    counts: GatewayCounts
    door: Door
    users: UserFile
    sessions: SessionFile
    upstream: Upstream
    connections: Callable[[], int]

    async def read(self) -> Readings:
        """Read them at one moment."""
        readings, counts = Readings(), self.counts
        readings.tell(BUILD, 1, "gateway", VERSION)
        readings.tell_each(CALLS, counts.calls)
        readings.tell_each(REFUSED, {**dict.fromkeys(_REASONS, 0), **counts.refused})
        readings.tell_each(FAILED, {**dict.fromkeys(_CODES, 0), **counts.failed})
        readings.distribute(ANSWERED, counts.answers)
        readings.tell(WATCHES, len(self.door.watches))
        readings.tell(WATCHES_ENDED, self.door.watches.ended)
        readings.tell(MESSAGES, counts.messages)
        readings.tell(CONNECTIONS, self.connections())
        with suppress(UserFileError):  # which each call says
            readings.tell(USERS, len(self.users.users()))
        readings.tell(SESSIONS, self.sessions.count())
        proved = self.upstream.credentials
        if proved is not None:
            readings.tell(IDENTITY_END, proved.end.timestamp())
        return readings
