"""One TCP connection with nothing in it but bytes: `take HOST`, or `send HOST PORT BYTES`."""

import json
import socket
import sys
import time

PIECE = 256 * 1024


def send(host: str, port: int, count: int) -> None:
    """Send so many bytes."""
    piece = b"x" * PIECE
    with socket.create_connection((host, port)) as link:
        for _ in range(count // PIECE):
            link.sendall(piece)


def take(host: str) -> None:
    """Print the port, take everything from one connection, and print how much and how long."""
    with socket.create_server((host, 0)) as server:
        sys.stdout.write(f"{server.getsockname()[1]}\n")
        sys.stdout.flush()
        link, _ = server.accept()
        start = time.monotonic()
        count = 0
        with link:
            while data := link.recv(PIECE):
                count += len(data)
    sys.stdout.write(json.dumps({"bytes": count, "seconds": time.monotonic() - start}))


if sys.argv[1] == "take":
    take(sys.argv[2])
else:
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
