"""Give orders to the stream worker on its socket.

Refused at: user; rights of files.
"""

import socket
from collections.abc import Mapping

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def attack(world: Mapping[str, str]) -> str:
    with socket.socket(socket.AF_UNIX) as worker:
        worker.settimeout(10)
        worker.connect(world["state"] + "/worker.sock")
        worker.sendall(GREETING)
        if not (answer := worker.recv(100)):
            raise PermissionError(0, "the stream worker did not answer")
    return f"it greets with {len(answer)} bytes"
