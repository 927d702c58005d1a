"""Peer: a ZeroMQ PULL socket over TCP; arguments COUNT, ADDRESS, HWM.

It runs in the peers' environment.
"""

import importlib
import json
import struct
import sys
import time
from typing import Any

COUNT, ADDRESS, HIGH_WATER = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
zmq: Any = importlib.import_module("zmq")
HEAD = struct.Struct("<QQ")


def main() -> None:
    """Take every record, and print what came."""
    socket = zmq.Context().socket(zmq.PULL)
    socket.set_hwm(HIGH_WATER)
    socket.connect(ADDRESS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    late: list[int] = []
    for expected in range(COUNT):
        frame = socket.recv(copy=False)
        number, stamp = HEAD.unpack_from(frame.buffer)
        late.append(time.monotonic_ns() - stamp)
        if number != expected:
            raise SystemExit(f"record {expected} is missing, {number} came")
    end = time.monotonic()
    late.sort()
    sys.stdout.write(
        json.dumps(
            {
                "end": end,
                "records": COUNT,
                "p50_ms": late[COUNT // 2] / 1e6,
                "p99_ms": late[COUNT * 99 // 100] / 1e6,
                "max_ms": late[-1] / 1e6,
            }
        )
    )


main()
