"""Which attempt has written more than it claims: decided here, from what was measured.

Rule. `resources: {disk: 1GiB}` is for all files in the job's folder, its HOME, its TMPDIR and what it prints,
the files of its bundle and inputs included, and for deleted files that its processes still hold open. Each file
counts for at least 4 KiB, so that what is measured ends once so many were seen. The folder is looked at once a
second, and less often where that takes long; a single file is bounded by RLIMIT_FSIZE at once.

What does not count: what a job of level `user` writes elsewhere, where all users may write (/tmp, /dev/shm).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.attempts.events import DiskFull
from edge_agent.disk_watch import FolderUse, size_text
from shoal.model import Reason, ReasonCode
from shoal.names import AttemptRef

FILE_BYTES_MIN: Final = 4096
"""What a file counts for at least."""
_RARELY: Final = 5.0
"""So many times as long as a look takes there is none."""


@dataclass(frozen=True, slots=True)
class ClaimedFolder:
    """The folder of an attempt, and how many bytes it claims."""

    ref: AttemptRef
    path: Path
    size_bytes: int


def beyond_claim(folder: ClaimedFolder, use: FolderUse) -> DiskFull | None:
    """Return the end of an attempt that has more than it claims."""
    if use.size_bytes <= folder.size_bytes:
        return None
    words = (
        f"it has written more than the {size_text(folder.size_bytes)} that it claims: its folder has "
        f"{use.size_bytes:,} bytes in {use.files} files, those of its bundle, its inputs and its output "
        "included; write less, or claim more by `resources: {disk: …}`"
    )
    return DiskFull(folder.ref, Reason(ReasonCode.DISK, 0, words))


def next_look(begun: float, ended: float, pause_seconds: float) -> float:
    """Return when to look again after a look that took from `begun` to `ended`."""
    return ended + max(pause_seconds, _RARELY * (ended - begun))
