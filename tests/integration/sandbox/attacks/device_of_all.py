"""Open a device that was not asked for, whose node every user may use (0666).

Refused at: user; the list of devices of cgroup v1. Where there is none: at confined, where only devices asked for are
there.
"""

import os
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    os.close(os.open(world["device_of_all"], os.O_WRONLY))
    return "the device is open"
