"""A file of the kernel, read by no more calls than it takes."""

import os
from typing import Final

_READ_BYTES: Final = 65_536


def read_kernel_file(path: str) -> bytes:
    """All of a file of /proc or of a control group, which are said a page at a time.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        said = b""
        while more := os.read(descriptor, _READ_BYTES):
            said += more
        return said
    finally:
        os.close(descriptor)
