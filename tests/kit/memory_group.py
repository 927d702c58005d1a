"""A real control group with little memory, in which a test starts processes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.cgroup_limits import memory_groups
from tests.kit.until import until_sync


class MemoryGroup:
    """A control group; `path` is its folder.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def limit(self, size_bytes: int) -> None:
        """Let its processes have at most so much memory together, and none of it on a swap device."""
        version_2 = (self.path / "memory.max").exists()
        limit = "memory.max" if version_2 else "memory.limit_in_bytes"
        (self.path / limit).write_text(str(size_bytes))
        swap = ("memory.swap.max", "0") if version_2 else ("memory.swappiness", "0")
        with contextlib.suppress(OSError):  # a kernel without swap
            (self.path / swap[0]).write_text(swap[1])

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Put this process into it for a while: what it starts meanwhile stays in it."""
        _enter(self.path)
        try:
            yield
        finally:
            _enter(self.path.parent)


@contextlib.contextmanager
def memory_group(name: str) -> Iterator[MemoryGroup]:
    """Make a group below the one of this process, and remove it once nothing is left in it."""
    parent = next(iter(memory_groups()), None)
    if parent is None or os.geteuid() != 0:
        pytest.skip("only root may make a control group, where the kernel counts memory by groups")
    path = parent / name
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if not any((path / one).exists() for one in ("memory.max", "memory.limit_in_bytes")):
            pytest.skip(f"{parent} gives its groups no limit of memory")
        yield MemoryGroup(path)
    finally:
        until_sync(lambda: _removed(path), 20, f"that {path} is empty")


def _enter(folder: Path) -> None:
    try:
        (folder / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        pytest.skip(f"this process may not go into {folder}: {error}")


def _removed(path: Path) -> bool:
    # An agent that was killed in it has left the groups of its jobs.
    for below in [one.parent for one in path.rglob("cgroup.procs") if one.parent != path][::-1]:
        with contextlib.suppress(OSError):
            below.rmdir()
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
