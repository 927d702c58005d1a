"""What agents say: who they are, and where their attempts stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from control.views import no_strings
from shoal.model import NO_REASON, Artifact, Capacity, Followed, JobState, Reason, StreamCounters
from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class Observation:
    """Where an attempt stands, as its agent sees it; idempotent.

    `SUCCEEDED` means archived and ready to be committed, with `artifacts`.
    """

    ref: AttemptRef
    state: JobState
    reason: Reason = NO_REASON
    artifacts: tuple[Artifact, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class AgentHello:
    """Who an agent is, and every attempt that it knows and whose end was not acknowledged.

    `agent_id` is that of its process and `instance_id` that of its journal; `followed` is what it
    followed last, and `address` where it dialled from.
    """

    node: str
    agent_id: str
    capacity: Capacity
    stream_address: str = ""
    agent_version: str = ""
    labels: Mapping[str, str] = field(default_factory=no_strings)
    architecture: str = ""
    attempts: tuple[Observation, ...] = ()
    bundles: frozenset[str] = frozenset()
    member_name: str = ""
    instance_id: str = ""
    followed: Followed | None = None
    address: str = ""
    refuses: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Counters of an attempt's ports and the job's own words; kept in memory only."""

    ref: AttemptRef
    streams: tuple[StreamCounters, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fenced:
    """An observation was about a stale attempt: its agent ends and forgets it."""

    ref: AttemptRef
    message: str
