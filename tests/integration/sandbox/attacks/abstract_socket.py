"""Dial an abstract socket of another job.

Refused at: user; Landlock from ABI 6 on (Linux 6.12). Elsewhere only a job without a network is kept from it.
"""

import socket
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.settimeout(10)
        dialled.connect("\0" + world["token"])
        return dialled.recv(100).decode()
