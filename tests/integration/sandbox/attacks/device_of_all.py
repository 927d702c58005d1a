"""Open a device that was not asked for, whose node every user may use (0666).

Refused at: confined; devices that were not asked for are not there.
"""

import os
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    os.close(os.open(world["device_of_all"], os.O_WRONLY))
    return "the device is open"
