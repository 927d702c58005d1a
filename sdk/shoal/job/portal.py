"""Stands in on a board for a job that runs beside a client: copies records, and does not look inside.

Each port `client-NAME` is the client's end of the port `NAME`: what comes in at one goes out at the
other, record for record with the same numbers, headers and all. Shoal runs it; users do not.
"""

import json
import os
import socket
import sys
import threading
from typing import Any, Dict, List, Tuple

from shoal.job.block import ACK, DATA, END, HEADER, START, encode_mark
from shoal.job.block_reader import BlockReader
from shoal.job.error import PortError
from shoal.job.port_threads import next_block, run_all

PREFIX = "client-"


class Pair:
    """An input and the output that its records go to."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._closed = False
        self._source = source
        self._target = target
        source.setblocking(True)
        target.setblocking(True)
        self._reader = BlockReader()

    def run(self) -> None:
        """Copy up to the end of the input, or until it is not wanted.

        Raises:
            PortError: A port broke off, or the two do not begin at the same record.
            OSError: A port cannot be read or written.
        """
        try:
            self._copy()
        except BrokenPipeError:
            return
        except (OSError, PortError):
            if not self._closed:
                raise

    def _watch(self) -> None:
        """Let go of the input once the output is closed, which is its end of file."""
        try:
            while self._target.recv(4096):
                pass
            self._closed = True
            self._source.shutdown(socket.SHUT_RD)
        except OSError:
            return  # the process ends

    def _copy(self) -> None:
        begun = next_block(self._source, self._reader)
        answered = next_block(self._target, BlockReader())
        if begun.kind != START or answered.kind != START or begun.first != answered.first:
            raise PortError(
                "it begins with kind {} at {}, and its other side with kind {} at {}: both have to "
                "begin at the same record".format(
                    begun.kind, begun.first, answered.kind, answered.first
                )
            )
        threading.Thread(target=self._watch, daemon=True).start()
        while True:
            block = next_block(self._source, self._reader)
            if block.kind == END:
                self._target.sendall(encode_mark(END, block.first))
                return
            if block.kind != DATA:
                continue
            length = len(block.body)
            self._target.sendall(HEADER.pack(DATA, 0, 0, block.total, block.first, length, 0))
            self._target.sendall(block.body)
            self._source.sendall(encode_mark(ACK, block.first + block.total))


def pairs_of(ports: Dict[str, Dict[str, Dict[str, Any]]]) -> List[Tuple[str, int, int]]:
    """Name, input and output descriptor of each pair; `ports` is what SHOAL_PORTS says.

    Raises:
        PortError: A port has no other side.
    """
    inputs, outputs = ports["inputs"], ports["outputs"]
    pairs: List[Tuple[str, int, int]] = []
    for name, port in sorted(inputs.items()):
        other = name[len(PREFIX) :] if name.startswith(PREFIX) else PREFIX + name
        if other not in outputs:
            raise PortError("input {!r} has no output {!r}".format(name, other))
        pairs.append((name, int(port["fd"]), int(outputs[other]["fd"])))
    return pairs


def main() -> int:
    """Copy everything; the exit status is 0 if all inputs have ended."""
    pairs = {
        name: Pair(
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=source),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=target),
        )
        for name, source, target in pairs_of(json.loads(os.environ["SHOAL_PORTS"]))
    }
    return run_all("shoal.job.portal", {name: pair.run for name, pair in pairs.items()})


if __name__ == "__main__":
    sys.exit(main())
