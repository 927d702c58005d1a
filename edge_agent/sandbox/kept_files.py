"""Files of the kernel that are read again and again, kept open: a read is one system call in the place of three.

A file whose control group was removed cannot be read any more, also where a new group has its name: it is opened anew.
At most `_MOST` are kept, and the one that was read longest ago is closed for another one.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from edge_agent.sandbox.group_folder import READ_BYTES

_MOST: Final = 128


class KeptFiles:
    """Such files, for several threads; `close` them."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes | None:
        """Read a file from its beginning, a few kilobytes at most; None where it cannot be read."""
        with self._lock:
            descriptor = self._open.get(path)
            if descriptor is not None:
                try:
                    said = os.pread(descriptor, READ_BYTES, 0)
                except OSError:
                    del self._open[path]
                    _close(descriptor)
                else:
                    self._open.move_to_end(path)
                    return said
            return self._read_anew(path)

    def say_the_same(self, said: Iterable[tuple[str, bytes]]) -> bool:
        """Whether files say now what they said, all of them."""
        return all(self.read(path) == words for path, words in said)

    def close(self) -> None:
        """Close all of them; what is read afterwards is opened again."""
        with self._lock:
            while self._open:
                _close(self._open.popitem()[1])

    def _read_anew(self, path: str) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            said = os.pread(descriptor, READ_BYTES, 0)
        except OSError:
            _close(descriptor)
            return None
        if len(self._open) >= _MOST:
            _close(self._open.popitem(last=False)[1])
        self._open[path] = descriptor
        return said


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
