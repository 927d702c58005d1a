"""In which order the kernel ends processes when memory runs out: jobs first, agent and keeper last.

The kernel takes the process with the highest share of memory, in thousandths, after `oom_score_adj` is added. A child
has the score of its parent, so each program of a job gets one of its own before it begins (`SandboxPlan.oom_score`).

Source: Documentation/filesystems/proc.rst of Linux, 3.1; only CAP_SYS_RESOURCE may lower it.
"""

import contextlib
from pathlib import Path
from typing import Final

KEPT_SCORE: Final = -900
"""Of what a board lives by: not -1000, so that the kernel has a way out where nothing else is left."""
JOB_SCORE: Final = 500
"""Of a job of which nothing else is said."""


def be_taken_last(score: Path = Path("/proc/self/oom_score_adj")) -> bool:
    """Lower the score of this process and of what it starts from now on; returns whether the kernel agreed."""
    with contextlib.suppress(OSError, ValueError):
        if int(score.read_text("ascii")) > KEPT_SCORE:
            score.write_text(str(KEPT_SCORE), "ascii")
        return True
    return False
