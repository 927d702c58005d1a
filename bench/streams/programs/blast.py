"""Sends N records of B bytes in blocks that it packs itself, as a program in another language would."""

import json
import os
import socket
import struct
import sys
import time

HEADER = struct.Struct("<BBHIQII")
COUNT, SIZE = int(sys.argv[1]), int(sys.argv[2])
TOGETHER = max(1, 240 * 1024 // (SIZE + 4))


def main() -> None:
    """Send on the port `out`."""
    number = json.loads(os.environ["SHOAL_PORTS"])["outputs"]["out"]["fd"]
    with socket.socket(fileno=number) as port:
        port.recv(1 << 16)  # START
        sys.stdout.write(f"{time.monotonic()}\n")
        sent = 0
        while sent < COUNT:
            count = min(TOGETHER, COUNT - sent)
            body = struct.pack("<I", SIZE) * count + b"x" * (SIZE * count)
            port.sendall(HEADER.pack(1, 0, 0, count, sent, len(body), 0) + body)
            sent += count
        port.sendall(HEADER.pack(2, 0, 0, 0, COUNT, 0, 0))


main()
