"""Peer: a ZeroMQ PUSH socket over TCP; arguments COUNT, BYTES, RATE (0: as fast as it goes), HWM.

It prints its address, and when it sent first. It runs in the peers' environment.
"""

import importlib
import struct
import sys
import time
from typing import Any

COUNT, SIZE, RATE, HIGH_WATER = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])  # fmt: skip
zmq: Any = importlib.import_module("zmq")


def main() -> None:
    """Send every record in a message of its own."""
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.set_hwm(HIGH_WATER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    sys.stdout.write(f"tcp://127.0.0.1:{port}\n")
    sys.stdout.flush()
    sys.stdin.readline()  # the taker is there
    filler = b"x" * (SIZE - 16)
    start = time.monotonic()
    for number in range(COUNT):
        wait = start + number / RATE - time.monotonic() if RATE else 0
        if wait > 0:
            time.sleep(wait)
        socket.send(struct.pack("<QQ", number, time.monotonic_ns()) + filler, copy=SIZE < 65536)
    sys.stdout.write(f"{start}\n")
    sys.stdout.flush()
    socket.close(linger=-1)
    context.term()


main()
