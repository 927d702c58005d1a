"""Takes blocks, acknowledges each, and looks only at their headers; prints how many records came."""

import json
import os
import socket
import struct
import sys
import time

HEADER = struct.Struct("<BBHIQII")
DATA, END, ACK = 1, 2, 3


def main() -> None:
    """Take from the port `in`."""
    number = json.loads(os.environ["SHOAL_PORTS"])["inputs"]["in"]["fd"]
    taken = wrong = 0
    scratch = bytearray(1 << 20)
    with socket.socket(fileno=number) as port:
        while True:
            kind, _, _, count, first, length, _ = HEADER.unpack(read(port, scratch, 24))
            read(port, scratch, length)
            if kind == END:
                break
            if kind == DATA:
                wrong += first != taken
                taken += count
                port.sendall(HEADER.pack(ACK, 0, 0, 0, taken, 0, 0))
    told = {"end": time.monotonic(), "records": taken, "wrong": wrong, "p50_ms": 0, "p99_ms": 0}
    sys.stdout.write(json.dumps(told))


def read(port: socket.socket, scratch: bytearray, count: int) -> memoryview:
    """Read so many bytes."""
    have = 0
    with memoryview(scratch) as view:
        while have < count:
            have += port.recv_into(view[have:count])
    return memoryview(scratch)[:count]


main()
