"""Fetches the ends of a job's ports from the keeper (docs/architecture.md, section 2)."""

import asyncio
import json
import socket
from typing import Any, cast

from services.streams.worker.port import SocketEnd
from services.streams.worker.port_link import PortName

_PACKET_BYTES = 64 * 1024
_DESCRIPTORS_MAX = 253  # what the kernel passes at once, SCM_MAX_FD
_SEND_BUFFER_BYTES = 1024 * 1024
_DEADLINE_SECONDS = 5.0


class KeeperRefusedError(Exception):
    """The keeper does not know the attempt, or answers nonsense."""


class KeeperAwayError(Exception):
    """No keeper answers: what it kept is gone, or will be ended by the next one."""


class KeeperPorts:
    """Ports whose ends a keeper hands over at its Unix socket."""

    async def fetch(self, keeper_path: str, keeper_id: str) -> dict[PortName, SocketEnd]:
        """See `PortSource`."""
        sockets = await asyncio.to_thread(fetch_ports, keeper_path, keeper_id)
        return {name: SocketEnd(end) for name, end in sockets.items()}


def fetch_ports(path: str, attempt: str) -> dict[PortName, socket.socket]:
    """Return the stream worker's ends of an attempt's ports; blocks up to 5 s.

    Raises:
        KeeperAwayError: No keeper answers at `path`.
        KeeperRefusedError: The attempt is not known there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(_DEADLINE_SECONDS)
        try:
            link.connect(path)
            link.send(json.dumps({"id": 1, "op": "ports", "attempt": attempt}).encode())
            data, descriptors, _, _ = socket.recv_fds(
                link, _PACKET_BYTES, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise KeeperAwayError(
                f"the keeper at {path} does not hand over the ports of {attempt}: {error}"
            ) from error
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        names, directions = _names(data, path, attempt)
        if len(names) != len(sockets):
            raise KeeperRefusedError(
                f"the keeper at {path} names {len(names)} ports of {attempt} "
                f"and sent {len(sockets)} descriptors"
            )
    except KeeperRefusedError:
        for end in sockets:
            end.close()
        raise
    for end in sockets:
        end.setblocking(False)
        # Fewer turns between worker and job for large records; the kernel takes what it allows.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    ports: dict[PortName, socket.socket] = {}
    for name, direction, end in zip(names, directions, sockets, strict=True):
        # An older keeper does not send directions, and has each name once.
        ports |= {(name, output): end for output in (False, True) if direction in _SAID[output]}
    return ports


_SAID = {False: {"in", ""}, True: {"out", ""}}


def _names(data: bytes, path: str, attempt: str) -> tuple[list[str], list[str]]:
    try:
        reply = cast("dict[str, Any]", json.loads(data))
    except ValueError as error:
        raise KeeperRefusedError(f"the keeper at {path} answers {data[:80]!r}") from error
    if "error" in reply:
        raise KeeperRefusedError(f"the keeper at {path} refuses {attempt}: {reply['error']}")
    names = [str(name) for name in cast("list[object]", reply.get("ports", []))]
    said = cast("list[object]", reply.get("directions", [""] * len(names)))
    return names, [str(direction) for direction in said]
