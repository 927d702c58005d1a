"""Programs of ours that serve ports with a thread each: how they wait for a block, and how they end."""

import socket
import sys
import threading
from typing import Callable, Dict, Mapping

from shoal.job.block import Block
from shoal.job.block_reader import BlockReader
from shoal.job.error import PortError


def next_block(source: socket.socket, reader: BlockReader) -> Block:
    """Wait for the next block, for as long as it takes.

    Raises:
        PortError: The port broke off, or is none of blocks.
    """
    while True:
        block = reader.next()
        if block is not None:
            return block
        count = source.recv_into(reader.space())
        if not count:
            raise PortError("it broke off before its end")
        reader.advance(count)


def run_all(program: str, works: Mapping[str, Callable[[], None]]) -> int:
    """Run what is to be done for each port in a thread; the exit status is 0 if all went well.

    What went wrong is said on stderr, with the name of the port.
    """
    errors: Dict[str, Exception] = {}

    def run(name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, ValueError, PortError) as error:
            errors[name] = error

    threads = [
        threading.Thread(target=run, name=name, args=(name, work)) for name, work in works.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, error in errors.items():
        sys.stderr.write("{}: port {!r}: {}\n".format(program, name, error))
    return 1 if errors else 0
