"""The limits that the kernel puts on this process by its control groups: cores and memory.

Rule: a group is limited by itself and by every group above it, as far as this process sees them.
- Which groups: /proc/self/cgroup has a line for each hierarchy, `ID:CONTROLLERS:PATH`; that of version 2 has
  no controllers. /proc/self/mountinfo says where a hierarchy is mounted, and which of its groups is the root
  of that mount. In a container PATH is often one of the host, and the mount shows the container's own group
  alone: where PATH does not begin with the root of the mount, the top of the mount is the group.
- Version 2: `cpu.max` is `QUOTA PERIOD` or `max PERIOD` in microseconds, `memory.max` bytes or `max`.
- Version 1: `cpu.cfs_quota_us` (-1 for none) over `cpu.cfs_period_us`, `memory.limit_in_bytes` (for none a
  number beyond all memory).
Both versions may be there at once (hybrid: version 2 without controllers), so both are read.
Example: `docker run --cpus 0.5 --memory 256m`: 0.5 cores, 268435456 bytes.

Sources: cgroups(7), proc_pid_mountinfo(5); Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of
Linux; `CgroupSubsystem` of OpenJDK, which reads the same files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

_V1: Final = "cgroup"
_V2: Final = "cgroup2"
_UNLIMITED: Final = 1 << 62
"""Version 1 says something near to 2^63 for no limit."""
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_DIGITS: Final = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What the groups of a process leave it.

    Attributes:
        cpus: cores; None for all.
        memory_bytes: memory; None for all.
    """

    cpus: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class OwnGroup:
    """The group of this process in one hierarchy.

    Attributes:
        folder: its folder.
        mount: where the hierarchy is mounted; no folder above it is a group.
        controllers: those of a hierarchy of version 1; one of version 2 has them in `cgroup.controllers`.
        unified: whether the hierarchy is that of version 2.
    """

    folder: Path
    mount: Path
    controllers: frozenset[str]
    unified: bool


@dataclass(frozen=True, slots=True)
class _Mount:
    top: PurePosixPath
    point: PurePosixPath
    controllers: frozenset[str]
    unified: bool


def cgroup_limits(root: Path = Path("/")) -> CgroupLimits:
    """Read the limits of this process; what cannot be read limits nothing.

    Args:
        root: the folder that stands for `/`.
    """
    paths = _paths(root)
    cpus: list[float] = []
    memory: list[int] = []
    for mount in _mounts(root):
        for controller in mount.controllers & {"cpu", "memory"}:
            path = paths.get("" if mount.unified else controller)
            for folder in () if path is None else _groups(root, mount, path):
                if controller == "cpu" and (cores := _cpus(folder)) is not None:
                    cpus.append(cores)
                if controller == "memory" and (size := _memory(folder)) is not None:
                    memory.append(size)
    return CgroupLimits(min(cpus, default=None), min(memory, default=None))


def memory_groups(root: Path = Path("/")) -> tuple[Path, ...]:
    """Return the folders of the groups in which the memory of this process is counted, and of none above them."""
    paths = _paths(root)
    found: list[Path] = []
    for mount in _mounts(root):
        path = paths.get("" if mount.unified else "memory")
        if "memory" in mount.controllers and path is not None:
            found += islice(_groups(root, mount, path), 1)
    return tuple(found)


def own_groups(root: Path = Path("/")) -> tuple[OwnGroup, ...]:
    """Return the group of this process in each hierarchy that is mounted."""
    paths = _paths(root)
    found: dict[tuple[bool, frozenset[str]], OwnGroup] = {}
    for mount in _mounts(root):
        names = {""} if mount.unified else mount.controllers & paths.keys()
        path = next((paths[name] for name in sorted(names) if name in paths), None)
        folder = None if path is None else next(_groups(root, mount, path), None)
        if folder is None:
            continue
        controllers = frozenset[str]() if mount.unified else mount.controllers & names
        top = root / mount.point.relative_to("/")
        group = OwnGroup(folder, top, controllers, mount.unified)
        found.setdefault((mount.unified, controllers), group)
    return tuple(found.values())


def _paths(root: Path) -> dict[str, PurePosixPath]:
    """Return the group of this process by controller; that of version 2 is called by no name."""
    found: dict[str, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            found[controller] = PurePosixPath(path or "/")
    return found


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, behind = line.partition(" - ")
        fields, kind, options = before.split(" "), behind.split(" ")[0], behind.split(" ")[-1]
        if len(fields) < 5 or kind not in {_V1, _V2}:
            continue
        top, point = (PurePosixPath(_unescaped(field)) for field in fields[3:5])
        if not point.is_absolute():
            continue
        unified = kind == _V2
        names = ("cpu", "memory") if unified else options.split(",")
        yield _Mount(top, point, frozenset(names), unified)


def _groups(root: Path, mount: _Mount, path: PurePosixPath) -> Iterator[Path]:
    """Return the folders of a group and of all above it that the mount shows."""
    shown = path.relative_to(mount.top) if path.is_relative_to(mount.top) else PurePosixPath()
    point = root / mount.point.relative_to("/")
    for group in (shown, *shown.parents):
        if ".." not in group.parts:  # a group outside of this process's namespace
            yield point / group


def _cpus(folder: Path) -> float | None:
    quota, period = [*_words(folder / "cpu.max"), "", ""][:2]
    if not quota:
        quota = "".join(_words(folder / "cpu.cfs_quota_us"))
        period = "".join(_words(folder / "cpu.cfs_period_us"))
    if (most := _number(quota)) and (within := _number(period)):
        return most / within
    return None


def _memory(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        for size in _words(folder / name):
            limit = _number(size)
            return limit if limit is not None and limit < _UNLIMITED else None
    return None


def _number(word: str) -> int | None:
    """Read what the kernel writes of an unsigned number of 64 bits; None for everything else."""
    return int(word) if _DIGITS.fullmatch(word) else None


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except (OSError, ValueError):  # a path with a zero byte is no path
        return []


def _unescaped(field: str) -> str:
    """Read a blank, a tab, a line break or a backslash, which mountinfo writes as octal numbers."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)
