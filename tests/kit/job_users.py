"""Users of jobs whose registry a test has for itself."""

import time
from pathlib import Path

from edge_agent.sandbox.job_users import JobUsers
from edge_agent.sandbox.user_leavings import SHARED, UserLeavings
from edge_agent.sandbox.user_range import UserRange


def job_users(
    users: UserRange, registry: Path, state: Path, chance: float = 0.0, *shared: Path
) -> JobUsers:
    """Return the users of an agent; what they leave is looked for in `shared`, or else where agents look."""
    leavings = UserLeavings(users, time.time, shared or SHARED)
    return JobUsers(users, registry, state, lambda: chance, time.monotonic, leavings)
