"""A small keeper of the tests' own: it hands out socketpairs that a test made, as SCM_RIGHTS."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self


class PortKeeper:
    """Serves `ports` on a SOCK_SEQPACKET socket, from a thread, while it is entered as a context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends: dict[str, Mapping[str, socket.socket]] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends the accept of the thread
        self._thread.join()
        self._listener.close()
        for attempt in list(self._ends):
            self.forget(attempt)

    def make(self, attempt: str, ports: list[str]) -> dict[str, socket.socket]:
        """Make a socketpair for each port of an attempt and return the job's ends."""
        pairs = {name: socket.socketpair() for name in ports}
        self._ends[attempt] = {name: pair[0] for name, pair in pairs.items()}
        return {name: pair[1] for name, pair in pairs.items()}

    def forget(self, attempt: str) -> None:
        """Close the keeper's copies of an attempt's ports."""
        for end in self._ends.pop(attempt, {}).values():
            end.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link:
                self._answer(link)

    def _answer(self, link: socket.socket) -> None:
        request: dict[str, Any] = json.loads(link.recv(65536))
        ends = self._ends.get(request["attempt"])
        if request["op"] != "ports" or ends is None:
            refusal = {"id": request["id"], "error": f"unknown attempt {request['attempt']}"}
            link.send(json.dumps(refusal).encode())
            return
        reply = json.dumps({"id": request["id"], "ports": list(ends)}).encode()
        socket.send_fds(link, [reply], [end.fileno() for end in ends.values()])
