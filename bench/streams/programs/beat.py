"""Sends N records of B bytes at R a second, each in a block of its own that leaves at once.

It speaks the port itself, as a program in another language would: no library holds records back.
"""

import json
import os
import socket
import struct
import sys
import time

HEADER = struct.Struct("<BBHIQII")
COUNT, SIZE, RATE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


def main() -> None:
    """Send on the port `out`."""
    number = json.loads(os.environ["SHOAL_PORTS"])["outputs"]["out"]["fd"]
    with socket.socket(fileno=number) as port:
        port.recv(1 << 16)  # START
        start = time.monotonic()
        sys.stdout.write(f"{start}\n")
        filler = b"x" * (SIZE - 16)
        for sequence in range(COUNT):
            wait = start + sequence / RATE - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            stamp = time.monotonic_ns()
            record = struct.pack("<QQ", sequence, stamp) + filler
            head = HEADER.pack(1, 0, 0, 1, sequence, 4 + SIZE, 0)
            port.sendall(head + struct.pack("<I", SIZE) + record)
        port.sendall(HEADER.pack(2, 0, 0, 0, COUNT, 0, 0))


main()
