"""Whether an agent of an ordinary user does well to give its jobs that user's subordinate users."""

import logging
import os
from pathlib import Path
from typing import Final

from edge_agent.sandbox.reach import EXECUTE, barrier
from edge_agent.sandbox.rootless import enter_namespace, why_not
from edge_agent.sandbox.user_range import FIRST_MIN, UserRange
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

_CAP_SETUID: Final = 7  # linux/capability.h
_STRANGER: Final = 4_294_967_293
"""A user that owns nothing."""


def own_job_users(state: Path, interpreter: Path) -> UserRange | None:
    """Enter a namespace in which jobs can have users, if that helps, and return the users that they have there.

    It does not help root, one that has the capability, or one whose folders no other user passes. Call it while
    this process has one thread.

    Args:
        state: the agent's state folder; it need not be there.
        interpreter: what the jobs are executed by.
    """
    if not would_help(state, interpreter):
        return None
    count = enter_namespace()
    LOG.info("jobs have subordinate users", extra=fields(count=count))
    return UserRange(FIRST_MIN, count - FIRST_MIN + 1)


def would_help(state: Path, interpreter: Path) -> bool:
    """Whether `own_job_users` would have users for jobs; tries it in a child."""
    if os.geteuid() == 0 or _may_change_user():
        return False
    if barrier(state, _STRANGER) or barrier(interpreter, _STRANGER, EXECUTE):
        return False
    if why := why_not():
        LOG.info("jobs cannot have subordinate users", extra=fields(why=why))
    return not why


def _may_change_user() -> bool:
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> _CAP_SETUID & 1)
    return False
