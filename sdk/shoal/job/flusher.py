"""A thread that writes what waits after 2 ms, while job code is busy with something else."""

import threading
from typing import Callable, Optional

FLUSH_SECONDS = 0.002
SLOWEST_SECONDS = 0.064


class Flusher:
    """Calls `flush` soon after `arm`, again and again until it says that nothing is left."""

    def __init__(self, flush: Callable[[], bool]) -> None:
        self._flush = flush
        self._armed = False
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def arm(self) -> None:
        """Something waits to be written; cheap when that is known."""
        if self._armed:
            return
        self._armed = True
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="shoal-flusher", daemon=True)
            self._thread = thread
            thread.start()
        self._wanted.set()

    def stop(self) -> None:
        """End the thread; what waits is left to the caller."""
        self._stop.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(1)

    def _run(self) -> None:
        delay = FLUSH_SECONDS
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._stop.wait(delay):
                return
            self._armed = False  # before the flush: what comes during it arms again
            if self._flush():
                delay = FLUSH_SECONDS
            else:  # no room at the other end
                delay = min(2 * delay, SLOWEST_SECONDS)
                self._armed = True
                self._wanted.set()
