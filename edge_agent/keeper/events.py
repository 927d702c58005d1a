"""What can happen to the programs of a keeper."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.keeper.record import ProcessRecord
from edge_agent.sandbox.group_counts import NO_COUNTS, GroupCounts


@dataclass(frozen=True, slots=True)
class Started:
    """A program runs. `timeout_seconds` and `lease_until` of 0 mean without limit.

    At `lease_until`, on the machine's own clock, it is asked to end, and `lease_grace_seconds` later
    it has to be gone. `relays` names the ports that are FIFOs, each of which has a relay.
    """

    record: ProcessRecord
    timeout_seconds: float = 0.0
    grace_seconds: float = 5.0
    lease_until: float = 0.0
    lease_grace_seconds: float = 0.0
    relays: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OfAttempt:
    """Something about one attempt."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Ended(OfAttempt):
    """The leader of a process group has ended; exactly one of `exit_code` and `signal` is set.

    `lease_ended` says that its guard ended it, `left` what of it could not be ended, `out_of_memory` that
    the kernel ended it for want of memory, `not_begun` why it was never executed. `counts`
    are those of its own control group.
    """

    exit_code: int | None
    signal: int | None
    end_time: float
    lease_ended: bool = False
    left: str = ""
    out_of_memory: bool = False
    not_begun: str = ""
    counts: GroupCounts = NO_COUNTS


@dataclass(frozen=True, slots=True)
class RelayEnded(OfAttempt):
    """The relay of a FIFO has ended; `problem` says why records may be missing, if they may be."""

    port: str
    problem: str


@dataclass(frozen=True, slots=True)
class StopAsked(OfAttempt):
    """The program is to end; None means the grace that it was started with."""

    grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ForgetAsked(OfAttempt):
    """The record is needed no more; what still runs of it is killed."""


@dataclass(frozen=True, slots=True)
class LeaseRenewed(OfAttempt):
    """The program may run until then; without another renewal it is ended then."""

    until: float


@dataclass(frozen=True, slots=True)
class KillRefused(OfAttempt):
    """A program that was to be killed belongs to another user; `why` says so."""

    why: str
    end_time: float


KeeperEvent = Started | Ended | RelayEnded | StopAsked | ForgetAsked | LeaseRenewed | KillRefused
