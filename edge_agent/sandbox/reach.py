"""What a user that owns nothing can reach, by the rights of files alone (access lists are not looked at).

The agent may pass everything where it is root, so it cannot try; what it starts for a user that cannot get there
would fail with words that do not help.
"""

import os
import stat
from pathlib import Path
from typing import Final

_LINKS_MAX: Final = 40  # path_resolution(7)

READ: Final = 4
EXECUTE: Final = 1


def barrier(path: Path, uid: int, rights: int = 0) -> Path | None:
    """Return the first folder on the way to a path that a user cannot pass, links followed; None if there is none.

    Args:
        path: absolute; what is missing is no barrier.
        uid: the user, whose group has the same number, and which is in no other.
        rights: what it needs of the last one: READ, EXECUTE or both; where it lacks them that is the barrier.
    """
    here = Path("/")
    rest = list(reversed(path.parts[1:]))
    links = 0
    while rest:
        name = rest.pop()
        try:
            if not _allows(os.stat(here), uid, EXECUTE):  # noqa: PTH116 - as the next one
                return here
            place = here / name
            status = os.lstat(place)
            if not stat.S_ISLNK(status.st_mode):
                here = here.parent if name == ".." else place
                continue
            target = place.readlink()
        except OSError:
            return None
        links += 1
        if links > _LINKS_MAX:
            return None
        if target.is_absolute():
            here = Path("/")
        rest += reversed([part for part in target.parts if part != "/"])
    try:
        return None if _allows(here.stat(), uid, rights) else here
    except OSError:
        return None


def _allows(status: os.stat_result, uid: int, rights: int) -> bool:
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == uid else 0
    return status.st_mode >> shift & rights == rights
