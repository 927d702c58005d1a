"""Give orders to the keeper on its socket.

Refused at: user; rights of files, and the keeper asks the kernel for its caller.
"""

import socket
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
        keeper.settimeout(10)
        keeper.connect(world["state"] + "/keeper.sock")
        keeper.send(b'{"id": 1, "op": "list"}')
        answer = keeper.recv(131072).decode()
    if '"id": 1' not in answer and '"id":1' not in answer:
        raise PermissionError(0, "the keeper did not answer")
    return answer[:100]
