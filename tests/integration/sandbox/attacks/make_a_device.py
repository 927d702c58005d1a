"""Make a device node of one's own and open it.

Refused at: user; it takes a capability.
"""

import os
import stat
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    os.mknod("node", 0o600 | stat.S_IFCHR, os.makedev(*map(int, world["device_number"].split(":"))))
    os.close(os.open("node", os.O_WRONLY))
    return "a device node was made and opened"
