"""List the folders of all attempts, and hence what others run.

Refused at: user; rights of files.
"""

import os
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    theirs = world["victim_work"].split("/")[-2]
    if theirs not in os.listdir(world["state"] + "/attempts"):
        raise FileNotFoundError(0, "there are no other attempts")
    return theirs
