"""Leave a daemon behind: other group and session, no variables, another mark.

Refused at: user; everything of the job's user is killed, and of its control groups and namespaces.
"""

import subprocess
import sys
from collections.abc import Mapping

LOCKS = 10  # asm-generic/resource.h: what a keeper marks its processes with


def attack(world: Mapping[str, str]) -> str:
    forked = (
        "import os, resource, signal, time\n"
        f"resource.setrlimit({LOCKS}, (77, resource.getrlimit({LOCKS})[1]))\n"
        "os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0)\n"
        "while True: signal.pause()\n"
    )
    subprocess.run(
        [sys.executable, "-c", forked, world["daemon"]], env={}, check=True, close_fds=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return "a daemon was started"
