"""SIGTERM, for a source: it ends after the record at hand, so that its own code can clean up.

A source that is asked to end is closed at its `yield`, and its process ends with the status that a
shell makes of SIGTERM. Its streams are not ended by that: the agent that ends it knows where they end, and
a process that anything else ended is one that failed.
"""

import contextlib
import signal
import threading
from typing import Any, Iterator

from shoal.job.error import JobError

STATUS = 128 + int(signal.SIGTERM)
"""Exit status of a source that was asked to end."""
CHECK_SECONDS = 0.2
"""A source that waits for room looks this often whether it is to end."""


class StoppedError(JobError):
    """The program was asked to end while it waited."""


class _Stop:
    """The request to end, of which a process has one."""

    def __init__(self) -> None:
        self.asked = False
        self.heard = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM as a request from here on, unless the program sees to it by itself."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            yield
            return
        self.asked, self.heard = False, True
        signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            self.heard = False
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def check(self) -> None:
        """Raise if the program is to end.

        Raises:
            StoppedError: It is.
        """
        if self.asked:
            raise StoppedError("told to end by SIGTERM")

    def _ask(self, _number: int, _frame: Any) -> None:
        self.asked = True


STOP = _Stop()
