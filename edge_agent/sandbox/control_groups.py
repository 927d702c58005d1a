"""The control groups of a node's attempts: made, limited and removed, in version 1 and version 2.

Rule. Each attempt has a group, which no other one has at the time, below `shoal-NAME`, which is below the agent's own
group, so that the limits of the agent's container or unit hold for its jobs, too.
- Version 1: one folder in each of the hierarchies `memory`, `cpu`, `pids` and `devices` that can be written to.
- Version 2: one folder. A group that has controllers for the groups below it may have no processes of its own, so
  the agent first moves what is in its group into a leaf `agent` beside `shoal-NAME`. It does not do so in the group
  of a unit of systemd itself: before version 254, systemd could not start the unit again while jobs live there.
  With `DelegateSubgroup=agent` systemd puts the agent into that leaf itself.
- What can be limited is found by doing it as the agent starts: a group is made and limited, and a process moved
  into it. What fails there is not promised.
- A limit that a group was to have and does not get is an error: a job never runs with less than that.

From attempt to attempt. A group that is as if it were new is kept for the next attempt with the same limits
(`edge_agent.sandbox.group_pool`). So its name says nothing of its attempt: an extended attribute of its first folder
does (`user.shoal.attempt`), for as long as the machine is up, as the group is there. Where the kernel keeps no such
attributes (before Linux 5.7), each attempt has a group that is made for it, and is named after it.

Leftovers. Groups outlive the agent, as its jobs do. The next agent of that name removes what it does not know. An
agent holds a lock (flock(2)) on its `shoal-NAME`, so one that starts tells groups of agents that are gone, which are
empty and not locked, from those of its neighbours, and removes them.

Invariant. No group with a process of an attempt that is known is ever removed: the kernel refuses it.

Example, version 1, `resources: {memory: 64Mi, cpus: 0.5, processes: 32}`: `memory.limit_in_bytes` and, where the
kernel counts swap, `memory.memsw.limit_in_bytes` are 67108864, `cpu.cfs_quota_us` is 50000 of 100000, `pids.max` 32.
Version 2: `memory.max` 67108864, `memory.swap.max` 0, `memory.oom.group` 1, `cpu.max` `50000 100000`, `pids.max` 32.

Not done: the devices of version 2, which are programs of eBPF that this agent would have to load.

Sources: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of Linux; CGROUP_DELEGATION of systemd.
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import subprocess
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from edge_agent.cgroup_limits import OwnGroup, own_groups
from edge_agent.sandbox.group_folder import as_new, kill_group, processes_of
from edge_agent.sandbox.group_pool import GroupPool
from edge_agent.sandbox.kept_files import KeptFiles
from shoal.sandbox import Claim

_PREFIX: Final = "shoal-"
_LEAF: Final = "agent"
_PROBE: Final = "probe"
_POOLED: Final = "attempt-"
"""Groups that go from attempt to attempt have a number behind it."""
_ATTRIBUTE: Final = "user.shoal.attempt"
_UNITS: Final = (".service", ".scope", ".slice")
_PLAIN: Final = re.compile(r"[a-zA-Z0-9._-]{1,200}")
_NAME: Final = re.compile(r"[a-z0-9-]{1,100}")
_PERIOD_MICROSECONDS: Final = 100_000
_QUOTA_MICROSECONDS_MIN: Final = 1_000
_SHARES_A_CORE: Final = 1024
_WEIGHT_A_CORE: Final = 100
_WEIGHT_MAX: Final = 10_000

_CONTROLLERS: Final[Mapping[Claim, str]] = {
    Claim.MEMORY: "memory",
    Claim.CPUS: "cpu",
    Claim.PROCESSES: "pids",
}
_DEVICES: Final = "devices"

HARMLESS_DEVICES: Final = (
    *(
        "c 1:3 rw",
        "c 1:5 rw",
        "c 1:7 rw",
        "c 1:8 rw",
        "c 1:9 rw",
    ),  # null, zero, full, random, urandom
    *("c 5:0 rw", "c 5:1 rw", "c 5:2 rw", "c 136:* rw"),  # tty, console, ptmx, pseudo terminals
)
"""What a program may always use, in the words of the `devices` controller."""


class GroupError(Exception):
    """A group cannot be had as it was asked for; the message says which limit, and why."""


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What all processes of a group may take together; 0 for as much as there is.

    Attributes:
        memory_bytes: memory and swap.
        cpus: cores.
        processes: processes and threads.
        devices: devices beside the harmless ones, as words of the `devices` controller (`c 81:0 rw`); None for all.
    """

    memory_bytes: int = 0
    cpus: float = 0.0
    processes: int = 0
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GroupPlaces:
    """A group as a `SandboxPlan` names it.

    Attributes:
        join: files that a process writes its number into.
        kill: folders of the group.
    """

    join: tuple[str, ...] = ()
    kill: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class _Group:
    """A group; `limits` is None as long as it does not have all that it is to have, or they are not known.

    `said` is what its files said when it was as new with these limits: if they say the same, it is so again.
    """

    name: str
    places: GroupPlaces
    limits: GroupLimits | None = None
    said: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class ControlGroups:
    """The groups of one agent; `open` finds out what can be had.

    Attributes:
        enforces: what binds by a group, and by which version: `cgroup v1` or `cgroup v2`.
        devices: whether devices can be kept from a job by its group.
        refused: why what is missing cannot be had, for people; empty where nothing is missing.
    """

    enforces: Mapping[Claim, str] = field(default_factory=dict[Claim, str])
    devices: bool = False
    refused: str = ""
    _bases: dict[Path, frozenset[str]] = field(default_factory=dict[Path, frozenset[str]])
    """The folders `shoal-NAME`, with what can be limited below each."""
    _locks: list[int] = field(default_factory=list[int])
    _held: dict[str, _Group] = field(default_factory=dict[str, _Group])
    """The groups of attempts."""
    _named: set[str] = field(default_factory=set[str])
    """Folders of groups that an agent before named after their attempts."""
    _files: KeptFiles = field(default_factory=KeptFiles)
    _free: GroupPool[GroupLimits, _Group] = field(default_factory=GroupPool[GroupLimits, _Group])
    _notes: bool = True
    """Whether a folder can say which attempt has it."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, name: str, root: Path = Path("/")) -> Self:
        """Find out what can be limited here; never raises for what the machine refuses.

        Args:
            name: stable for one state folder: lower-case letters, digits and hyphens, 1 to 100 of them.
            root: the folder that stands for `/`.

        Raises:
            ValueError: the name is another.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of groups: use lower-case letters, digits and -")
        groups = cls()
        refused: dict[str, str] = {}
        enforces: dict[Claim, str] = {}
        for own in own_groups(root):
            top = _top(own)
            wanted = _available(own, top) & {*_CONTROLLERS.values(), _DEVICES}
            if not wanted:
                continue
            try:
                base, had = _base(own, top, name, wanted)
                groups._hold(base)
                had = groups._tried(base, had, refused)
            except OSError as error:
                refused |= dict.fromkeys(wanted, _words(error))
                continue
            if had:
                groups._bases[base] = had
            version = "cgroup v2" if own.unified else "cgroup v1"
            enforces |= {claim: version for claim, one in _CONTROLLERS.items() if one in had}
            groups.devices |= _DEVICES in had
        groups.enforces = enforces
        groups._take_over()
        missing: dict[str, list[str]] = {}
        for claim, controller in _CONTROLLERS.items():
            if claim not in enforces:
                why = refused.get(controller, "no hierarchy that is mounted here has it")
                missing.setdefault(why, []).append(controller)
        groups.refused = "; ".join(f"{', '.join(names)}: {why}" for why, names in missing.items())
        return groups

    def close(self) -> None:
        """Let go of the locks; groups of attempts stay, as the jobs in them do."""
        with self._lock:
            unused = self._free.clear()
        self._files.close()
        for group in unused:
            _all_removed(group)
        for base in self._bases:
            with contextlib.suppress(OSError):  # there are some
                base.rmdir()
        while self._locks:
            os.close(self._locks.pop())

    def make(self, attempt: str, limits: GroupLimits) -> GroupPlaces:
        """Return the group of an attempt with these limits: the one that it has, one that is as new, or a new one.

        Raises:
            GroupError: it cannot be had with all of them. What was made of it stays until `remove`.
        """
        with self._lock:
            group = self._group_of(attempt)
            if group is None:
                group = self._free.take(limits) or self._next(attempt)
            else:
                group.limits = None  # they may have been lowered to end an earlier program of it
            self._held[attempt] = group
        try:
            if group.limits is None:
                for folder in group.places.kill:
                    Path(folder).mkdir(parents=True, exist_ok=True)
            if self._notes and group.places.kill:
                os.setxattr(group.places.kill[0], _ATTRIBUTE, attempt.encode())
            if group.limits != limits:
                group.limits, group.said = None, ()  # until it has all of them
                for folder, controllers in zip(
                    group.places.kill, self._bases.values(), strict=True
                ):
                    _limit(Path(folder), controllers, limits)
                group.limits = limits
        except OSError as error:
            raise GroupError(
                f"the control group of the job cannot be had: {_words(error)}"
            ) from error
        return group.places

    def processes(self, attempt: str) -> tuple[int, ...]:
        """Return the processes of an attempt; none where it has no group."""
        with self._lock:
            group = self._group_of(attempt)
        found: dict[int, None] = {}
        for folder in () if group is None else group.places.kill:
            found |= dict.fromkeys(processes_of(Path(folder)))
        return tuple(found)

    def remove(self, attempt: str) -> bool:
        """Take the group of an attempt, and kill what is left in it; say whether nothing of it is there any more.

        One that is as new is kept for another attempt.
        """
        with self._lock:
            group = self._group_of(attempt)
            self._held.pop(attempt, None)
        if group is None:
            return True
        limits = group.limits
        if self._notes and limits is not None and self._is_as_new(group, limits):
            with self._lock:
                if self._free.give(limits, group):
                    return True
        return _all_removed(group)

    def _is_as_new(self, group: _Group, limits: GroupLimits) -> bool:
        if group.said and self._files.say_the_same(group.said):
            return True
        said: list[tuple[str, bytes]] = []

        def read(path: str) -> bytes | None:
            words = self._files.read(path)
            if words is not None:
                said.append((path, words))
            return words

        new = as_new(group.places.kill, limits.memory_bytes, limits.processes, read)
        group.said = tuple(said) if new else ()
        return new

    def trim(self) -> None:
        """Remove what is kept for other attempts, and no attempt has taken since this was called before."""
        with self._lock:
            unused = self._free.stale()
        for group in unused:
            _all_removed(group)

    def sweep(self, known: Collection[str]) -> None:
        """Remove what earlier agents left: of this name what is not known, and of agents that are gone all."""
        with self._lock:
            for attempt in self._held.keys() - set(known):
                del self._held[attempt]
            unused = self._free.clear()
            names = {_folder_name(attempt) for attempt in known}
            names |= {group.name for group in self._held.values()}
        self._files.close()
        for group in unused:
            _all_removed(group)
        for base in self._bases:
            for folder in _groups_in(base):
                if folder.name not in names:
                    _removed(folder)
            for other in _groups_in(base.parent):
                if other != base and other.name.startswith(_PREFIX):
                    _remove_abandoned(other)

    def _take_over(self) -> None:
        """Know the groups of attempts of an agent before; their limits are not known, so no other attempt gets them."""
        names = {folder.name for base in self._bases for folder in _groups_in(base)}
        for name in names:
            number = name.removeprefix(_POOLED)
            if name == number or not number.isdecimal():
                self._named.add(name)
                continue
            group = self._group(name)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                attempt = os.getxattr(group.places.kill[0], _ATTRIBUTE).decode()
                self._held[attempt] = group
        numbers = [int(name.removeprefix(_POOLED)) for name in names - self._named]
        self._numbers = itertools.count(max(numbers, default=-1) + 1)

    def _group_of(self, attempt: str) -> _Group | None:
        """The group that an attempt has."""
        held = self._held.get(attempt)
        if held is None and self._named and (name := _folder_name(attempt)) in self._named:
            self._named.discard(name)
            held = self._held[attempt] = self._group(name)
        return held

    def _next(self, attempt: str) -> _Group:
        """One that is not made yet."""
        return self._group(
            f"{_POOLED}{next(self._numbers)}" if self._notes else _folder_name(attempt)
        )

    def _group(self, name: str) -> _Group:
        folders = [base / name for base in self._bases]
        joined = (str(folder / _joined(folder.parent)) for folder in folders)
        return _Group(name, GroupPlaces(tuple(joined), tuple(map(str, folders))))

    def _hold(self, base: Path) -> None:
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._locks.append(descriptor)
        with contextlib.suppress(
            OSError
        ):  # a process that holds the whole lock keeps the folder, too
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _tried(
        self, base: Path, controllers: frozenset[str], refused: dict[str, str]
    ) -> frozenset[str]:
        """Return what works of these, by limiting a group and moving a process into it."""
        folder = base / _PROBE
        folder.mkdir(exist_ok=True)
        try:
            try:
                os.setxattr(folder, _ATTRIBUTE, b"probe")
            except OSError:
                self._notes = False
            works: set[str] = set()
            for controller in controllers:
                try:
                    _limit(folder, frozenset({controller}), _PROBED)
                except OSError as error:
                    refused[controller] = _words(error)
                else:
                    works.add(controller)
            _move_one(folder)
            return frozenset(works)
        finally:
            _removed(folder)


_PROBED: Final = GroupLimits(memory_bytes=64 << 20, cpus=0.5, processes=8, devices=())


def device_word(path: Path) -> str:
    """Return what the `devices` controller calls a device node; empty if it is none, or not there."""
    try:
        status = path.stat()
    except OSError:
        return ""
    kind = {0o020000: "c", 0o060000: "b"}.get(status.st_mode & 0o170000)
    return (
        "" if kind is None else f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} rw"
    )


def _top(own: OwnGroup) -> Path:
    """Return the group below which groups are made: the agent's own, or the one above where it is in its leaf."""
    leaf = own.unified and own.folder.name == _LEAF and own.folder != own.mount
    return own.folder.parent if leaf else own.folder


def _available(own: OwnGroup, top: Path) -> frozenset[str]:
    if not own.unified:
        return own.controllers
    try:
        return frozenset((top / "cgroup.controllers").read_text("ascii").split())
    except (OSError, ValueError):
        return frozenset()


def _base(
    own: OwnGroup, top: Path, name: str, controllers: frozenset[str]
) -> tuple[Path, frozenset[str]]:
    """Make `shoal-NAME`; return it, and which of these the groups below it have.

    Raises:
        OSError: it cannot be made.
    """
    base = top / f"{_PREFIX}{name}"
    if own.unified:
        _empty(own, top)
        _enable(top, controllers)
        base.mkdir(exist_ok=True)
        _enable(base, controllers)
        enabled = (base / "cgroup.subtree_control").read_text("ascii").split()
        controllers &= frozenset(enabled)
    else:
        base.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # before Linux 5.11 limits of groups above held only so
            _set(base / "memory.use_hierarchy", "1")
    _weigh(base, controllers, float(os.cpu_count() or 1))
    return base, controllers


def _empty(own: OwnGroup, top: Path) -> None:
    """Leave no process in the group of version 2 below which groups are made.

    Raises:
        OSError: it is not ours to change.
    """
    if own.folder != top or not (top / "cgroup.type").exists():
        return  # the agent is in its leaf, or in the root of all, which may have processes
    if top != own.mount and top.suffix in _UNITS:
        raise OSError(
            errno.EPERM,
            "it is the group of a unit of systemd itself; say Delegate=memory cpu pids and "
            "DelegateSubgroup=agent in the unit (systemd 254 or later)",
            str(top),
        )
    leaf = top / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in processes_of(top):
        with contextlib.suppress(ProcessLookupError):
            _set(leaf / "cgroup.procs", str(pid))


def _enable(folder: Path, controllers: Collection[str]) -> None:
    for controller in sorted(controllers):
        with contextlib.suppress(OSError):  # what is not there then is not promised
            _set(folder / "cgroup.subtree_control", f"+{controller}")


def _limit(folder: Path, controllers: Collection[str], limits: GroupLimits) -> None:
    """Give a group all limits that are asked for and that its controllers have.

    Raises:
        OSError: one of them is refused.
    """
    unified = (folder / "cgroup.controllers").exists()
    if "memory" in controllers and limits.memory_bytes:
        (_limit_memory_v2 if unified else _limit_memory_v1)(folder, limits.memory_bytes)
    if "cpu" in controllers and limits.cpus:
        _limit_cpus(folder, limits.cpus, unified=unified)
    if "pids" in controllers and limits.processes:
        _set(folder / "pids.max", str(limits.processes))
    if _DEVICES in controllers and limits.devices is not None:
        _set(folder / "devices.deny", "a")
        for word in (*HARMLESS_DEVICES, *limits.devices):
            _set(folder / "devices.allow", word)


def _limit_memory_v1(folder: Path, size_bytes: int) -> None:
    with contextlib.suppress(OSError):
        _set(folder / "memory.use_hierarchy", "1")
    try:
        _set(folder / "memory.limit_in_bytes", str(size_bytes))
    except OSError:
        # More than a limit of both that it has already, which may never be the lower one.
        _set(folder / "memory.memsw.limit_in_bytes", str(size_bytes))
        _set(folder / "memory.limit_in_bytes", str(size_bytes))
    try:
        _set(folder / "memory.memsw.limit_in_bytes", str(size_bytes))
    except FileNotFoundError:  # the kernel does not count swap by groups: none of it then
        _set(folder / "memory.swappiness", "0")


def _limit_memory_v2(folder: Path, size_bytes: int) -> None:
    _set(folder / "memory.max", str(size_bytes))
    with contextlib.suppress(FileNotFoundError):  # a kernel without swap
        _set(folder / "memory.swap.max", "0")
    with contextlib.suppress(FileNotFoundError):  # before Linux 4.19
        _set(folder / "memory.oom.group", "1")


def _limit_cpus(folder: Path, cpus: float, *, unified: bool) -> None:
    _weigh(folder, {"cpu"}, cpus)
    quota = max(_QUOTA_MICROSECONDS_MIN, round(cpus * _PERIOD_MICROSECONDS))
    if unified:
        _set(folder / "cpu.max", f"{quota} {_PERIOD_MICROSECONDS}")
        return
    _set(folder / "cpu.cfs_period_us", str(_PERIOD_MICROSECONDS))
    try:
        _set(folder / "cpu.cfs_quota_us", str(quota))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # More than a group above has, which then binds it more closely.


def _weigh(folder: Path, controllers: Collection[str], cpus: float) -> None:
    """Let a group have its share where there is too little for all."""
    if "cpu" not in controllers:
        return
    with contextlib.suppress(OSError):
        if (folder / "cpu.shares").exists():
            _set(folder / "cpu.shares", str(max(2, round(cpus * _SHARES_A_CORE))))
        else:
            weight = min(_WEIGHT_MAX, max(1, round(cpus * _WEIGHT_A_CORE)))
            _set(folder / "cpu.weight", str(weight))


def _move_one(folder: Path) -> None:
    """Move a process into a group, to see whether that may be done."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as one:
        try:
            _set(folder / "cgroup.procs", str(one.pid))
        finally:
            one.kill()
            one.wait()  # without a deadline: the kernel ends it, and a sleep would hang below a clock that is faked


def _removed(folder: Path) -> bool:
    """Remove a group and all groups below it; say whether it is gone."""
    for below in [*reversed(list(_below(folder))), folder]:
        try:
            below.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            kill_group([str(below)])
            with contextlib.suppress(OSError):
                below.rmdir()
    return not folder.exists()


def _all_removed(group: _Group) -> bool:
    """Remove a group in all hierarchies; say whether it is gone."""
    gone = [_removed(Path(folder)) for folder in group.places.kill]
    return all(gone)


def _remove_abandoned(base: Path) -> None:
    """Remove the groups of an agent that is gone, unless its jobs live there."""
    try:
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folders = [*reversed(list(_below(base))), base]
        if not any(processes_of(folder) for folder in folders):
            for folder in folders:
                folder.rmdir()
    except OSError:
        return  # its agent lives, or it is not ours to remove
    finally:
        os.close(descriptor)


def _joined(folder: Path) -> str:
    """Return the file by which a process of one thread joins a group.

    In version 1 that is `tasks`: a thread that moves itself waits for no other thread of the machine.
    """
    return "cgroup.procs" if (folder / "cgroup.controllers").exists() else "tasks"


def _below(folder: Path) -> Iterator[Path]:
    """Return all groups below one, those above before those below."""
    for one in _groups_in(folder):
        yield one
        yield from _below(one)


def _groups_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(one) for one in entries if one.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _folder_name(attempt: str) -> str:
    if _PLAIN.fullmatch(attempt):
        return f"a-{attempt}"  # no file of the kernel begins like that
    return f"a-{hashlib.sha256(attempt.encode()).hexdigest()}"


def _set(path: Path, text: str) -> None:
    """Write to a file of the kernel; none is made.

    Raises:
        OSError: it is not there, or the kernel refuses it; the path is in the error.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} for {text!r}", str(path)) from None
    finally:
        os.close(descriptor)


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
