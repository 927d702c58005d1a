"""Use the kernel's keyrings, io_uring, and sockets to the host of a virtual machine.

Refused at: user; the filter of system calls.
"""

import ctypes
import os
import platform
import socket
from collections.abc import Mapping

KEYCTL = {"x86_64": 250, "aarch64": 219}
IO_URING_SETUP = 425
USERS_KEYRING = -4


def attack(world: Mapping[str, str]) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    got: list[str] = []
    if libc.syscall(KEYCTL[platform.machine()], 0, USERS_KEYRING, 1) >= 0:
        got.append("a keyring")
    if (ring := libc.syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(120))) >= 0:
        os.close(ring)
        got.append("io_uring")
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError:
        if not got:
            raise
    else:
        got.append("AF_VSOCK")
    return ", ".join(got)
