"""Where an attempt stands inside the agent, and where it may go from there."""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from shoal.model import JobState


class Phase(enum.StrEnum):
    """Where an attempt stands inside the agent; finer than the state that the agent reports."""

    __hash__ = (
        str.__hash__
    )  # that of an enum is no built-in one, and each step looks up several phases
    BUNDLE = "bundle"
    FILES = "files"
    ENVIRONMENT = "environment"
    READY = "ready"
    """Prepared, and waiting for an older attempt of the same job to be gone from this node."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DRAINING = "draining"
    COLLECTING = "collecting"
    GRANTING = "granting"
    """Waiting for the controller's addresses to store artifacts under."""
    UPLOADING = "uploading"
    ENDED = "ended"
    """Its end is known; it stays until the controller no longer wants it."""
    FORGETTING = "forgetting"


_OUT = frozenset({Phase.ENDED, Phase.FORGETTING})


MOVES: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        Phase.BUNDLE: _OUT | {Phase.FILES},
        Phase.FILES: _OUT | {Phase.ENVIRONMENT},  # a list of requirements may be one of the files
        Phase.ENVIRONMENT: _OUT | {Phase.READY},
        Phase.READY: _OUT | {Phase.STARTING},
        # Back to BUNDLE only after the machine itself went down and took the program with it, or what
        # its disk had not written yet.
        Phase.STARTING: _OUT | {Phase.RUNNING, Phase.STOPPING, Phase.BUNDLE},
        Phase.RUNNING: _OUT | {Phase.STOPPING, Phase.DRAINING, Phase.COLLECTING, Phase.BUNDLE},
        Phase.STOPPING: _OUT | {Phase.COLLECTING},
        Phase.DRAINING: _OUT | {Phase.COLLECTING},
        Phase.COLLECTING: _OUT | {Phase.GRANTING, Phase.BUNDLE},
        # Back to COLLECTING only after the machine went down: are the files still what was hashed?
        Phase.GRANTING: _OUT | {Phase.UPLOADING, Phase.COLLECTING},
        Phase.UPLOADING: _OUT | {Phase.GRANTING, Phase.COLLECTING},
        # Back to COLLECTING for what it printed, once its end is told.
        Phase.ENDED: frozenset({Phase.FORGETTING, Phase.COLLECTING}),
        Phase.FORGETTING: frozenset(),
    }
)
"""Where an attempt may go from where it stands."""


PREPARING = frozenset({Phase.BUNDLE, Phase.ENVIRONMENT, Phase.FILES, Phase.READY})


ALIVE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING})
"""Phases in which a program of the attempt may run on this node."""


ARCHIVING = frozenset({Phase.COLLECTING, Phase.GRANTING, Phase.UPLOADING})


FAILS_FOR_ITS_DISK = PREPARING | {Phase.RUNNING, Phase.DRAINING}
"""Phases in which an attempt may be failed for what it has written: later it is on its way out."""


STATE_OF: Mapping[Phase, JobState] = MappingProxyType(
    dict.fromkeys(PREPARING | {Phase.STARTING}, JobState.PREPARING)
    | dict.fromkeys((Phase.RUNNING, Phase.STOPPING), JobState.RUNNING)
    | {Phase.DRAINING: JobState.DRAINING}
    | dict.fromkeys(ARCHIVING, JobState.ARCHIVING)
)
"""What a phase looks like from outside; an ended attempt says its own."""


class InvalidMoveError(RuntimeError):
    """An attempt was to go where its table does not lead: a mistake in this program."""
