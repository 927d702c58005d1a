"""What the control plane refuses with; each names the thing, the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.names import PipelineRef
from shoal.suggestion import did_you_mean


class ControlError(Exception):
    """Root of what the control plane raises on purpose."""


class UnknownPipelineError(ControlError, LookupError):
    """No such pipeline in this namespace."""


class UnknownJobError(ControlError, LookupError):
    """No such job in this pipeline."""


class UnknownPortError(ControlError, LookupError):
    """No such port at this job."""


class UnknownNodeError(ControlError, LookupError):
    """No agent of that name ever connected."""


class PageTokenError(ControlError, ValueError):
    """A page token that no answer contained."""


class ResumeTokenError(ControlError, ValueError):
    """A resume token that no answer contained, or that is of a watch of something else."""


class UnknownSequenceError(ControlError, ValueError):
    """An event that this controller has not recorded: another store, or an older copy of it, had it."""


class SessionEndedError(ControlError):
    """The session is not, or no longer, that of its node: dial again."""


class WatcherTooSlowError(ControlError):
    """A watcher did not keep up and was cut off: watch again from the last revision."""


class StoreFailedError(ControlError):
    """The store could not record: nothing of the request has happened."""


class StoreFullError(StoreFailedError):
    """The disk of the store has no room left: nothing of the request has happened."""


class StoreVersionError(StoreFailedError):
    """A newer version of the program wrote the store."""


class TermOverError(ControlError):
    """A later controller has opened the store: nothing of the request has happened.

    This controller is not the leader any more, and has to end.
    """


class RowError(ControlError, ValueError):
    """A row that no store can hold: the transaction that it was in has not happened."""


class InternalError(ControlError):
    """A request met a mistake of the control plane itself: nothing of it has happened."""


class RebuildingError(ControlError):
    """The control plane is being built anew from its store: try again in a moment."""


class ClosingError(ControlError):
    """The control plane is shutting down."""


class NotQuarantinedError(ControlError, ValueError):
    """A node cannot be adopted: it follows this controller already."""


class NodeNotGoneError(ControlError, ValueError):
    """A node cannot be forgotten: it is there, or something is still on it."""


class NameTakenError(ControlError, ValueError):
    """Another agent has the name of the node; `retry_seconds` says when to ask again."""

    def __init__(self, message: str, retry_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class RevokedError(ControlError, ValueError):
    """The certificate that the caller proves itself by was revoked."""


class HelloRefusedError(ControlError, ValueError):
    """An agent introduced itself in a way that cannot be recorded."""


def unknown_pipeline(ref: PipelineRef) -> UnknownPipelineError:
    """Say that a namespace has no such pipeline."""
    return UnknownPipelineError(
        f"namespace {ref.namespace!r} has no pipeline {ref.pipeline!r}: "
        "it was never submitted there, or it ended long ago"
    )


def unknown_node(name: str, known: Iterable[str]) -> UnknownNodeError:
    """Say that there is no such node, and which there are."""
    names = set(known)
    remedy = did_you_mean(name, names) if names else "no agent has connected yet: shoal agent"
    return UnknownNodeError(f"there is no node {name!r}; {remedy}")
