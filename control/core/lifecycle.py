"""The lifecycles of attempts and jobs as tables; whatever is off the table raises.

    QUEUED -> ASSIGNED -> PREPARING -> RUNNING -> DRAINING -> ARCHIVING -> SUCCEEDED
                                                                       | FAILED | CANCELLED

An attempt begins ASSIGNED and may besides become LOST. Its agent may report only the latest of
several steps, so an attempt moves forward by any number of them. A job begins QUEUED, follows its
current attempt, and goes back to QUEUED or RETRY_WAIT when that attempt fails or is lost.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from shoal.model import JobState, ReasonCode

_S = JobState
StateT = TypeVar("StateT", bound=enum.Enum)

STEPS = (_S.ASSIGNED, _S.PREPARING, _S.RUNNING, _S.DRAINING, _S.ARCHIVING)
"""The states in which an attempt is on its node, in order."""

_ENDS = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})

ATTEMPT: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {step: frozenset(STEPS[index + 1 :]) | _ENDS | {_S.LOST} for index, step in enumerate(STEPS)}
    | {end: frozenset[JobState]() for end in (*_ENDS, _S.LOST)}
)
"""From the state of an attempt to the states that may follow."""

JOB: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _S.QUEUED: frozenset({_S.ASSIGNED, _S.CANCELLED}),
        _S.RETRY_WAIT: frozenset({_S.QUEUED, _S.CANCELLED}),
    }
    | {
        step: frozenset(STEPS[index + 1 :]) | _ENDS | {_S.QUEUED, _S.RETRY_WAIT}
        for index, step in enumerate(STEPS)
    }
    | {end: frozenset[JobState]() for end in _ENDS}
)
"""From the state of a job to the states that may follow; LOST is never the state of a job."""

PLACED = frozenset(STEPS)
"""States with a current attempt."""

CLAIMING = frozenset({_S.ASSIGNED, _S.PREPARING, _S.RUNNING})
"""States in which an attempt claims resources: afterwards its program has ended."""

STARTED = frozenset({_S.RUNNING, _S.DRAINING, _S.ARCHIVING})
"""States that say that the program was started."""

ENDED_WELL = frozenset({_S.DRAINING, _S.ARCHIVING, _S.SUCCEEDED})
"""States that say that the program has ended, and well."""

ENDED = _ENDS
"""States after which nothing happens to a job."""

UNCOUNTED = frozenset({ReasonCode.LOST, ReasonCode.REWIND, ReasonCode.FENCED})
"""Failures that are no fault of the job: they do not use up the attempts that the spec grants."""


class IllegalTransitionError(Exception):
    """A step that is not on the table: a mistake in the control plane itself."""


class Owner(enum.Enum):
    """The party that acts next, so that nothing waits without an end."""

    SCHEDULER = "scheduler"
    AGENT = "agent"
    TIMER = "timer"


@dataclass(frozen=True, slots=True)
class Wait:
    """The party that a waiting state waits for, and what ends the wait if it stays silent.

    `sentence` is for people, where nothing more is known: for what, and until when. `{node}` stands
    for the node, `{neighbours}` for jobs, `{time}` for a moment.
    """

    owner: Owner
    deadline: str
    sentence: str = ""


WAITS: Mapping[JobState, Wait] = MappingProxyType(
    {
        _S.QUEUED: Wait(
            Owner.SCHEDULER,
            "the next plan, at once after whatever may have made room",
            "it waits for a node, until one has room",
        ),
        _S.ASSIGNED: Wait(
            Owner.AGENT,
            "assigned_seconds ends the session; the node's lease",
            "node {node} is to take it up, or is asked again, until its lease is over",
        ),
        _S.PREPARING: Wait(
            Owner.AGENT,
            "the agent's patience with each download and each step; the node's lease",
            "node {node} prepares bundle, files and environment, and starts its program when no other "
            "attempt of it runs there, until its lease is over",
        ),
        _S.RUNNING: Wait(Owner.AGENT, "the spec's timeout at the keeper; the node's lease"),
        _S.DRAINING: Wait(
            Owner.AGENT,
            "the node's lease",
            "node {node} keeps what it sent, until {neighbours} took it and ended well",
        ),
        _S.ARCHIVING: Wait(
            Owner.AGENT,
            "the node's lease",
            "node {node} stores its results, until the archive has taken them",
        ),
        _S.RETRY_WAIT: Wait(Owner.TIMER, "retry_time", "the next attempt begins at {time}"),
    }
)
"""For each state that is not the end: its owner and its deadline."""


def check(
    what: str,
    name: str,
    table: Mapping[StateT, frozenset[StateT]],
    before: StateT,
    after: StateT,
) -> StateT:
    """Return `after` if an attempt, a job or a scale of that name may go there by its table.

    Raises:
        IllegalTransitionError: It may not.
    """
    if after not in table.get(before, frozenset()):
        raise off_table(what, name, table, before, after)
    return after


def off_table(
    what: str,
    name: str,
    table: Mapping[StateT, frozenset[StateT]],
    before: StateT,
    after: StateT,
) -> IllegalTransitionError:
    """Say of an attempt, a job or a scale of that name that it cannot go from `before` to `after`."""
    allowed = ", ".join(sorted(state.name for state in table.get(before, ()))) or "nothing"
    return IllegalTransitionError(
        f"{what} {name} cannot go from {before.name} to {after.name}; allowed: {allowed}"
    )


def grows(before: JobState, after: JobState) -> bool:
    """Whether `after` is news about an attempt in `before`; what is not is a repetition."""
    return after in ATTEMPT.get(before, frozenset())
