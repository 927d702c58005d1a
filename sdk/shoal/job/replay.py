"""Sends recorded streams in place of the job that sent them first.

`python -m shoal.job.replay [--pace original] PORT=FILE …`, which `shoal run --replay` writes into the
pipeline. A file is as docs/cli.md describes it: a line of JSON, then blocks.
"""

import argparse
import hashlib
import json
import os
import socket
import sys
import time
from typing import IO, Any, Callable, Dict, Iterator, NamedTuple, Optional, Sequence

from shoal.job.block import DATA, END, HEADER, START, Block, encode_mark
from shoal.job.block_reader import BlockReader
from shoal.job.error import PortError
from shoal.job.port_threads import next_block, run_all

MAGIC = b"shoal-records 1 "
TIME = 6


def blocks_of(file: IO[bytes]) -> Iterator[Block]:
    """The blocks of a file, END last.

    Raises:
        PortError: It is no recording, or not a complete one, or not what was recorded.
    """
    line = file.readline()
    if not line.startswith(MAGIC):
        raise PortError("it is no recording: it begins with {!r}".format(line[:20]))
    tables, records = hashlib.sha256(), hashlib.sha256()
    while True:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            raise PortError("the recording has no end; it was not completed")
        kind, _flags, _reserved, count, first, length, _crc = HEADER.unpack(head)
        body = file.read(length)
        if len(body) < length:
            raise PortError("the recording breaks off at record {}".format(first))
        if kind == DATA:
            tables.update(body[: 4 * count])
            records.update(body[4 * count :])
        elif kind == END and body != hashlib.sha256(tables.digest() + records.digest()).digest():
            raise PortError("the recording is damaged: its digest is another one")
        yield Block(kind, first, count, body, headed=True)
        if kind == END:
            return


class Replay(NamedTuple):
    """Sends one file to one port.

    Args:
        port: the port's socket.
        port_format: what bytes it takes.
        path: the file.
        wait_until: returns once so many microseconds of the recording have passed.
    """

    port: socket.socket
    port_format: str
    path: str
    wait_until: Callable[[int], None]

    def run(self) -> None:
        """Send everything.

        Raises:
            PortError: It is no complete recording, or the port broke off.
            OSError: The file cannot be read, or the port not be written.
        """
        self.port.setblocking(True)
        with open(self.path, "rb") as file:
            if self.port_format == "blocks":
                begun = next_block(self.port, BlockReader())
                if begun.kind != START or begun.first:
                    raise PortError("a recording is sent from its first record on")
            self._send(file)

    def _send(self, file: IO[bytes]) -> None:
        sent = 0
        for block in blocks_of(file):
            if block.kind == TIME:
                self.wait_until(block.first)
            elif block.kind == DATA:
                if self.port_format == "blocks":
                    length = len(block.body)
                    self.port.sendall(HEADER.pack(DATA, 0, 0, block.total, sent, length, 0))
                    self.port.sendall(block.body)
                else:
                    newline = b"\n" if self.port_format in ("lines", "jsonl") else b""
                    self.port.sendall(b"".join(bytes(one) + newline for one in block.records()))
                sent += block.total
            elif block.kind == END and self.port_format == "blocks":
                self.port.sendall(encode_mark(END, sent))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Send all files; the exit status is 0 if all of them were sent to their ends."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal.job.replay", description="Send recorded streams."
    )
    parser.add_argument("--pace", choices=["fast", "original"], default="fast")
    parser.add_argument("files", nargs="+", metavar="PORT=FILE")
    given = parser.parse_args(arguments)
    ports: Dict[str, Dict[str, Any]] = json.loads(os.environ["SHOAL_PORTS"])["outputs"]
    began = time.monotonic()

    def wait_until(microseconds: int) -> None:
        if given.pace == "original":
            time.sleep(max(0.0, began + microseconds / 1e6 - time.monotonic()))

    replays: Dict[str, Replay] = {}
    for word in given.files:
        name, _, path = word.partition("=")
        port = ports[name]
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=int(port["fd"]))
        replays[name] = Replay(end, str(port["format"]), path, wait_until)
    return run_all("shoal.job.replay", {name: one.run for name, one in replays.items()})


if __name__ == "__main__":
    sys.exit(main())
