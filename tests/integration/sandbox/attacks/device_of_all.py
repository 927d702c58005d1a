"""Open a device that was not asked for, whose node every user may use (0666).

Refused at: user; the list of devices of cgroup v1, and where there is none at confined: the node is not there.
"""

import os
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    os.close(os.open(world["device_of_all"], os.O_WRONLY))
    return "the device is open"
