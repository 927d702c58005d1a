"""What an operator may set of the control machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from control.core.stored_limits import StoredLimits
from shoal.backoff import Backoff

LOSS_BACKOFF = Backoff(0.1, 30.0, jitter=0.0)
"""How a job slows down that is lost again and again; the first time costs nothing."""

NEWS_PAUSE = Backoff(10.0, 300.0, jitter=0.0)
"""How long a node or a stream that flaps is left alone between two of its events."""


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """What an operator may set; times in seconds.

    Attributes:
        lease_seconds: how long a node's silence is tolerated.
        heartbeat_seconds: how often an agent speaks at least.
        sweep_seconds: how often time is looked at while leases are held.
        pause_seconds: a longer time between two looks is a pause of the controller's own.
        assigned_seconds: how long an agent may leave an assignment untouched.
        losses_max: how many attempts of a job may be lost or rewound before it fails.
        stable_seconds: an attempt that lived longer makes earlier losses forgotten.
        loss_backoff: how a job slows down that is lost again and again.
        hold_seconds: how long streams may stand still for a scale before it is abandoned.
        plan_width: how many jobs that ask for the same are looked at in one plan.
        unplaced_seconds: how long a job may wait for a node before that is told.
        still_seconds: how long a stream may stand still before that is told.
        news_pause: how long what flaps is left alone between two events that are told of it.
        rival_seconds: when an agent may ask again whose name another agent has.
        suspect_suffices: whether a broken session and a mere suspicion replace a node's attempts;
            quicker, but an agent that is being restarted then loses its jobs.
        pipelines_open_max: most pipelines that have not ended.
        caller_pipelines_max: most of them of one identity.
        pipelines_ended_max: how many ended pipelines are remembered.
        dead_letters_max: how many dead letters are kept beside them.
        dead_letter_seconds: for how long.
        ended_in_memory: how many of all these are in memory too, since agents may still speak of them.
        nodes_max: most nodes.
        secret_keys: returns the ids of the keys that secrets can be read with.
        secrets_refused: why no job can be given secrets here; empty where it can.
        traces: whether the spans of pipelines that are in a trace are kept.
        traces_share: the share of pipelines that get a trace of their own if they are submitted in none, 0 to 1.
        stored: how much is kept of stored pipelines.
    """

    lease_seconds: float = 6.0
    heartbeat_seconds: float = 1.0
    sweep_seconds: float = 0.25
    pause_seconds: float = 1.0
    assigned_seconds: float = 30.0
    losses_max: int = 100
    stable_seconds: float = 600.0
    hold_seconds: float = 20.0
    loss_backoff: Backoff = LOSS_BACKOFF
    plan_width: int = 256
    unplaced_seconds: float = 30.0
    still_seconds: float = 60.0
    news_pause: Backoff = NEWS_PAUSE
    rival_seconds: float = 30.0
    suspect_suffices: bool = False
    pipelines_open_max: int = 200_000
    caller_pipelines_max: int = 100_000
    pipelines_ended_max: int = 10_000
    dead_letters_max: int = 1_000
    dead_letter_seconds: float = 90 * 86_400.0
    ended_in_memory: int = 256
    nodes_max: int = 20_000
    secret_keys: Callable[[], frozenset[str]] = frozenset[str]
    secrets_refused: str = ""
    traces: bool = False
    traces_share: float = 0.0
    stored: StoredLimits = field(default_factory=StoredLimits)
