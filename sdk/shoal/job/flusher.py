"""A thread that writes what job code leaves behind while it is busy with something else."""

import threading
from typing import Callable, Optional

FLUSH_SECONDS = 0.001
SLOW_SECONDS = 0.004
SLOWEST_SECONDS = 0.064

DONE = 0
"""Nothing is left to be done."""
SOON = 1
"""Something is left that will be due in a moment, unless job code does it."""
LATER = 2
"""What is left waits for another caller."""


class Flusher:
    """Calls `flush` soon after `arm`, and again until it says `DONE`; less and less often if `LATER`.

    Attributes:
        armed: Whether it will call in a moment.
        watching: Whether it will call sometime.
    """

    def __init__(self, flush: Callable[[], int]) -> None:
        self.armed = False
        self.watching = False
        self._flush = flush
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def arm(self) -> None:
        """Something waits to be written; cheap when that is known."""
        if self.armed:
            return
        self.armed = True
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="shoal-flusher", daemon=True)
            self._thread = thread
            thread.start()
        self._wanted.set()

    def watch(self) -> None:
        """Something may have to be written while job code is busy; cheap when that is known."""
        if not self.watching:
            self.watching = True
            self.arm()

    def stop(self) -> None:
        """End the thread; what waits is left to the caller."""
        self._stop.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(1)

    def _run(self) -> None:
        soon, later = FLUSH_SECONDS, 0.0
        while True:
            self._wanted.wait(later or None)
            if self._wanted.is_set():
                self._wanted.clear()
                if self._stop.wait(soon):
                    return
            # Before the flush: what comes during it arms again.
            self.armed = self.watching = False
            left = self._flush()
            if left == SOON:
                soon = min(2 * soon, SLOW_SECONDS)
                self.armed = self.watching = True
                self._wanted.set()
            elif left == LATER:
                soon = FLUSH_SECONDS
                later = min(2 * (later or FLUSH_SECONDS), SLOWEST_SECONDS)
                self.watching = True
            else:
                soon, later = FLUSH_SECONDS, 0.0
