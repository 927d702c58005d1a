"""Write into another job's FIFO.

Refused at: user; rights of files.
"""

import os
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    fifo = os.open(world["victim_work"] + "/fifo", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fifo, b"by another job")
    finally:
        os.close(fifo)
    return "another job read what it was not sent"
