"""Open a device that was not asked for, whose node a group may use (0660).

Refused at: user; the job is in the groups of the devices that it asked for alone.
"""

import os
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    os.close(os.open(world["device_of_a_group"], os.O_WRONLY))
    return "the device is open"
