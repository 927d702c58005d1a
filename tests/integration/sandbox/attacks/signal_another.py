"""Send a signal to a process of another job.

Refused at: user; it is another user's.
"""

import os
import signal
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    # One that is ignored: what is shown is that it might have been another.
    os.kill(int(world["victim_pid"]), signal.SIGURG)
    return "a process of another job got a signal"
