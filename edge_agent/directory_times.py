"""Whether directories are as they were before a program began, by one look at each.

**Rule.** A directory whose inode, owner, rights and time of change (ctime) are those of before is as it was. Whatever
is made, removed or renamed in it, and every change of its rights and attributes, sets that time to the present one; no
call sets it to another one, and no job can set the clock.

**When that holds.** File systems take times from a clock that moves once in a tick, of up to 10 ms: what is changed in
the tick of the change before leaves the time as it is. So a look proves nothing unless that clock (`file_time`) has
moved on from the last change of all directories before the program was asked for. Nor does it where times have no part
of a millisecond: such a file system stores coarser ones. Then what is in the directories has to be listed.

**Why.** To list a directory and its attributes takes six system calls more, and at each of them the threads of the
agent may have to wait for each other.

**A clock that is set back** does no harm: a change then has an earlier time, which is another one, too.

Example: `work` was given to its user at 12:00:00.000, the clock says .008 as the program is asked for, and it ends at
.011. The time of `work` is .000 still, so there is in it what was in it before.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_REALTIME_COARSE: Final = 5
"""The clock of linux/time.h for which Python has no name."""
_MILLISECOND: Final = 1_000_000

_Look = tuple[int, int, int, int, int]
"""Device, inode, rights, owner and time of change (ns) of a directory."""


@dataclass(frozen=True, slots=True)
class DirectoryTimes:
    """What was seen of directories, by name."""

    looks: Mapping[str, _Look]

    def prove(self, asked_at: int) -> bool:
        """Whether looks are a proof for a program that was asked for at this `file_time`."""
        times = [look[-1] for look in self.looks.values()]
        return asked_at - max(times) >= _MILLISECOND and all(one % _MILLISECOND for one in times)

    def is_same(self, name: str, found: os.stat_result) -> bool:
        """Whether what is found under a name now is what was seen."""
        return self.looks.get(name) == _look(found)


def file_time() -> int:
    """The time that a file would have which is changed now, in nanoseconds since 1970."""
    return time.clock_gettime_ns(_REALTIME_COARSE)


def directory_times(folder: str, names: Iterable[str]) -> DirectoryTimes:
    """Look at directories of a folder.

    Raises:
        OSError: one is not there.
    """
    return DirectoryTimes({name: _look(os.lstat(f"{folder}/{name}")) for name in names})


def _look(found: os.stat_result) -> _Look:
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_ctime_ns
