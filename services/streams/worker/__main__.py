"""`python -m services.streams.worker`: carries the records of the jobs on this node."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import sys
from pathlib import Path

from services.runtime import log, process
from services.streams.plan import StreamLimits
from services.streams.worker.server import Settings, serve

_EVERYWHERE = frozenset({"", "0.0.0.0", "[::]", "::"})  # noqa: S104 - refused without --advertise
_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less its final zero

_BYTES = {
    "memory_bytes": "retained in memory for one attempt before its spool is used",
    "credit_bytes": "in flight on one lane",
    "ring_bytes": "shared with the job of an output for large records, a multiple of 1 MiB; "
    "0 turns it off",
    "bulk_bytes": "a block as large as this takes its lane to a connection of its own, "
    "beside that of the small ones",
}
"""The limits that have an option, and what they limit."""

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3


def settings_from(arguments: list[str]) -> Settings:
    """Read the command line.

    Raises:
        StartRefusedError: It cannot work as asked.
    """
    parser = argparse.ArgumentParser(
        prog="python -m services.streams.worker",
        description=(
            "Carries the records of the jobs on this node. The agent gives orders over --socket; "
            "workers of other nodes fetch records at --listen. It outlives its agent."
        ),
        epilog="example: python -m services.streams.worker --socket /run/w.sock --listen 10.0.0.7:0",
    )
    limits = StreamLimits()
    parser.add_argument("--socket", required=True, type=Path, help="Unix socket for the agent")
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="for other nodes; port 0 takes any"
    )
    parser.add_argument(
        "--advertise",
        default="",
        metavar="HOST",
        help="host under which other nodes reach --listen (default: its host)",
    )
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FOLDER",
        help="what this node proves and trusts, as its agent keeps it (default: no identity)",
    )
    parser.add_argument(
        "--security",
        choices=("mutual", "ticket"),
        default="mutual",
        help="with --identity: mutual TLS between nodes, or lanes in the clear of which the tickets "
        "alone are checked (default: %(default)s)",
    )
    for name, words in _BYTES.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=getattr(limits, name),
            help=f"{words} (default: %(default)s)",
        )
    parser.add_argument("--log-level", default="INFO", help="DEBUG, INFO, WARNING or ERROR")
    given = parser.parse_args(arguments)
    log.setup("stream-worker", level=given.log_level)
    host, _, port = str(given.listen).rpartition(":")
    if not port.isdecimal():
        raise process.StartRefusedError(
            f"--listen {given.listen!r} is not HOST:PORT: write for example 10.0.0.7:0"
        )
    if host in _EVERYWHERE and not given.advertise:
        raise process.StartRefusedError(
            f"--listen {given.listen!r} does not say how other nodes reach it: add --advertise HOST"
        )
    if len(bytes(given.socket.absolute())) > _SOCKET_PATH_BYTES:
        raise process.StartRefusedError(
            f"--socket {given.socket} is longer than {_SOCKET_PATH_BYTES} bytes: use a shorter path"
        )
    try:
        limits = StreamLimits(**{name: getattr(given, name) for name in _BYTES})
    except ValueError as error:
        raise process.StartRefusedError(str(error)) from error
    return Settings(
        given.socket.absolute(),
        given.listen if host else f"0.0.0.0:{port}",
        given.advertise or host.strip("[]"),
        limits,
        given.identity,
        given.security == "ticket",
    )


def _keep_freed_memory() -> None:
    """Let the C library reuse the memory of large records instead of giving it back each time.

    Otherwise every megabyte that passes is mapped, zeroed and unmapped several times: half of the
    system time per record of 1 MiB (mallopt(3)). Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024)
        mallopt(_M_TRIM_THRESHOLD, 64 * 1024 * 1024)


def main() -> int:
    """Run the worker and return its exit code."""
    os.umask(0o077)  # its socket, its log and its spools are its user's alone
    _keep_freed_memory()
    try:
        settings = settings_from(sys.argv[1:])
    except process.StartRefusedError as refusal:
        sys.stderr.write(f"{refusal}\n")
        return process.ExitCode.REFUSED
    return process.run(lambda: serve(settings), uvloop=True)


if __name__ == "__main__":
    sys.exit(main())
