"""What the control plane refuses with; each names the thing, the value and the remedy."""


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


class SessionEndedError(ControlError):
    """The session is not, or no longer, that of its node: dial again."""


class WatcherTooSlowError(ControlError):
    """A watcher did not keep up and was cut off: watch again from the last revision."""


class StoreFailedError(ControlError):
    """The store could not record: nothing of the request has happened."""


class ClosingError(ControlError):
    """The control plane is shutting down."""


class HelloRefusedError(ControlError, ValueError):
    """An agent introduced itself in a way that cannot be recorded."""
