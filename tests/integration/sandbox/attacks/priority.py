"""Take the processor before everything else (SCHED_FIFO).

Refused at: user; it takes a capability.
"""

import os
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return "it ran before all others"
