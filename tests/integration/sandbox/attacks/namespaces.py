"""Make namespaces of one's own and mount in them.

Refused at: user; the filter of system calls.
"""

import ctypes
import os
from collections.abc import Mapping

NEW_USER_AND_MOUNTS = 0x10000000 | 0x00020000


def attack(world: Mapping[str, str]) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_USER_AND_MOUNTS) or libc.mount(b"none", b"/mnt", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "a tmpfs was mounted"
