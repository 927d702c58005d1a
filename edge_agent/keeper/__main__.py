"""Entry of the keeper: `python -m edge_agent.keeper --socket PATH`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import os
import secrets
import sys
import time
from pathlib import Path

from edge_agent.keeper import direct_start, strays
from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.oom_score import be_taken_last
from edge_agent.keeper.shell import KeeperShell


def main() -> int:
    """Serve the socket until shut down; 0 also when another keeper holds it already."""
    parser = argparse.ArgumentParser(prog="edge_agent.keeper", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="absolute path of the socket")
    parser.add_argument("--version", default="", help="version of the agent that starts it")
    arguments = parser.parse_args()
    path: Path = arguments.socket.absolute()
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log(f"another keeper serves {path}")
        return 0
    os.chdir("/")
    direct_start.leave_no_core()
    be_taken_last()
    left = strays.end_everything_of(str(path))
    if left:
        _log(f"killed {left} processes that an earlier keeper left behind")
    if not strays.adopt_orphans():
        _log("the kernel gives no orphans to the keeper: a job's daemons may outlive it")
    # What is there now stays: no collection looks at it, and no forked child copies it for being looked at.
    gc.collect()
    gc.freeze()
    KeeperShell(path, boottime, time.time, _log, secrets.token_hex(8), arguments.version).run()
    return 0


def _log(line: str) -> None:
    # A full disk takes no line, and jobs do not end for that.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
