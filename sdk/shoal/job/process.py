"""The one job that this process is: its context and its streams, made when they are first needed."""

import atexit
import os
import sys
from typing import Optional

from shoal.job.job_context import Context
from shoal.job.streams import Streams


class Process:
    """Holds what exists once in a process; shoal.job.testing puts another one in its place.

    Attributes:
        managed: Whether a program of `main`, `source`, `stream` or `run` ends the streams.
    """

    def __init__(self, context: Optional[Context] = None) -> None:
        self.managed = False
        self._context = context
        self._streams: Optional[Streams] = None

    @property
    def context(self) -> Context:
        """Which job this is.

        Raises:
            OutsideShoalError: The program was started by hand.
        """
        if self._context is None:
            self._context = Context(os.environ)
        return self._context

    @property
    def streams(self) -> Streams:
        """The ports, which are opened now.

        Raises:
            OutsideShoalError: The program was started by hand.
            PortError: A descriptor is no port.
        """
        if self._streams is None:
            self._streams = Streams(self.context)
        return self._streams

    @property
    def opened(self) -> bool:
        """Whether the ports were used."""
        return self._streams is not None

    @property
    def forgotten(self) -> bool:
        """Whether outputs were used and not ended."""
        streams = self._streams
        if streams is None or self.managed:
            return False
        return bool(streams.outputs) and not streams.ended


class _Holder:
    """The current process; an object, so that it can be exchanged."""

    process = Process()


def current() -> Process:
    """The process whose ports `shoal.job` speaks of."""
    return _Holder.process


def exchange(process: Process) -> Process:
    """Put another one in its place, and return the one before; for tests."""
    before, _Holder.process = _Holder.process, process
    return before


def _warn_at_exit() -> None:
    # An exception has said more than this would, and its streams must not end well.
    if _Holder.process.forgotten and not hasattr(sys, "last_type"):
        sys.stderr.write(
            "shoal.job: the program is over and its output streams are not ended: put the code "
            "into a function under @job.stream, or call job.end() at the end\n"
        )


atexit.register(_warn_at_exit)
