"""Be killed after the agent when memory is short (`oom_score_adj`).

Refused at: user; it takes a capability.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    Path("/proc/self/oom_score_adj").write_text("-999")
    return "it is killed last"
