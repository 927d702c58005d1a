"""The sandbox of jobs on a cluster of this machine: the best that can be had here, or none, which is said."""

import contextlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from shoal.sandbox import SandboxLevel


@dataclass(frozen=True, slots=True)
class OwnSandbox:
    """A level, and what a person is told of it in one line."""

    level: SandboxLevel
    said: str


_SAID = {
    SandboxLevel.NONE: "none: jobs run as this user",
    SandboxLevel.USER: "user: each job runs as a user of its own",
    SandboxLevel.CONFINED: "confined: each job runs in namespaces of its own",
}


def own_sandbox(state: Path, asked: SandboxLevel | None = None) -> OwnSandbox:
    """Return the level of the jobs of a cluster; call it before anything else runs in this process, since it forks.

    Args:
        state: folder of the cluster's files, which is made if it is missing.
        asked: what the person asked for; None for the best that can be had.
    """
    if asked is not None:
        return OwnSandbox(asked, _SAID[asked])
    from edge_agent.sandbox.probe import USER_TRIED, best, ground_here, reasons, try_levels  # noqa: PLC0415 - for a quick --help
    from edge_agent.sandbox.subordinate_users import would_help  # noqa: PLC0415

    with contextlib.suppress(OSError):  # the cluster says it, with a remedy
        state.mkdir(parents=True, exist_ok=True)
    search = os.environ.get("PATH", os.defpath)
    found = try_levels(ground_here(state, USER_TRIED, platform.machine(), search))
    level = best(found)
    if level is None and would_help(state, Path(os.path.realpath(sys.executable))):
        level = SandboxLevel.USER  # its agents enter a namespace in which they can
    if level is None:
        none = SandboxLevel.NONE
        return OwnSandbox(
            none, f"{_SAID[none]}, since nothing better can be had here ({reasons(found)})"
        )
    return OwnSandbox(level, _SAID[level])
