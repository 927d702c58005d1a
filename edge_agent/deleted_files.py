"""Files without a name that processes hold open: they take room on a disk, and no walk of folders finds them.

An agent sees the descriptors of its own processes, and as root those of all; of others it sees none. A file that is
only mapped, and neither open nor named, is not found.
"""

import contextlib
import stat
from collections.abc import Sequence
from pathlib import Path


def deleted_files(pids: Sequence[int], device: int, root: Path = Path("/")) -> tuple[int, int]:
    """Return how many bytes such files of some processes take on a disk, and how many there are.

    Args:
        pids: the processes.
        device: number of the disk (`st_dev`).
        root: the folder that stands for `/`.
    """
    found: dict[int, int] = {}
    for pid in pids:
        folder = root / "proc" / str(pid) / "fd"
        with contextlib.suppress(OSError):  # it ended, or is not ours to look at
            for one in folder.iterdir():
                with contextlib.suppress(OSError):
                    status = one.stat()  # of the file itself: nothing is opened
                    nameless = stat.S_ISREG(status.st_mode) and status.st_nlink == 0
                    if nameless and status.st_dev == device:
                        found[status.st_ino] = status.st_blocks * 512
    return sum(found.values()), len(found)
