"""The starters of a keeper: which plans they serve, when there is one, and what is done when one is gone.

Rule 1. A **template** is what all plans of a recipe have alike: a plan without its user, the groups that it joins and
the folders that its end kills; and in place of the attempt's own files it allows the folder of all attempts. So a
program that a starter starts is kept from other attempts by their owners' rights (0700) alone, and not by Landlock
too. Each template has a starter of its own, made for its first program.

Rule 2. A starter serves what it can do exactly as a fork of the keeper does it (`suits`). For all else, and where it is
short of something, there is the fork.

Rule 3. Landlock means the folders that were there when the starter sealed itself, and not their paths. So the paths are
looked at again, once in `_LOOK_SECONDS` at most; where one leads elsewhere by now, there is a new starter.

Rule 4. A starter without anything to do ends after `IDLE_SECONDS`, or when there are `STARTERS_MAX` and another one is
wanted. One that has programs stays until they have ended, since they end with it should the keeper be killed; where all
have some, a fork starts the program.

Rule 5. One that does not answer within `_START_SECONDS`, that was stopped, or that is gone, is killed, and all that the
user of the program runs that it was to start: whether the program had begun is not known, so it is not begun again
(ADR 6). The error of the start says so.

Invariant. A program's process id stands in `_owner` as long as its starter lives and has not told its end; so a signal
to its group goes by its starter then, and by the keeper itself, which is its parent, afterwards.
"""

import contextlib
import functools
import math
import operator
import os
import resource
import selectors
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from edge_agent.cgroup_limits import OwnGroup, own_groups
from edge_agent.keeper import starter, strays
from edge_agent.keeper import starter_words as words
from edge_agent.keeper.child import ChildEnd
from edge_agent.keeper.execution import Execution, SpawnError
from edge_agent.keeper.group_files import GroupNumbers, opened
from edge_agent.keeper.remains import Remains
from edge_agent.keeper.starter_hand import known_machine
from edge_agent.keeper.told_ends import ENDS_MAX, ToldEnds
from edge_agent.sandbox.plan import FilesRule, SandboxPlan

STARTERS_MAX: Final = 8
IDLE_SECONDS: Final = 10.0

_START_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
_WAIT: Final = struct.pack("ll", 0, 50_000)  # struct timeval
"""How long what waits for an answer sleeps at once."""
_END_SECONDS: Final = 2.0
_END_LOOK_SECONDS: Final = 0.01
_AGAIN_SECONDS: Final = 60.0
_WORDS_MAX: Final = 10_000
_HIGHEST: Final = 2
_JOINS_KEPT: Final = 256
_FILES_MIN: Final = 64
_FILES_OWN: Final = 32
"""What of that a starter needs for itself, and for what it is brought."""
_BELL_BYTES: Final = 4096
_NO_GROUPS: Final = -1
_DATA_MIN: Final = 128 << 20
_PROCESSES_MIN: Final = 2
_HOLDABLE: Final = {
    int(resource.RLIMIT_NOFILE): _FILES_MIN,
    int(resource.RLIMIT_DATA): _DATA_MIN,
    int(resource.RLIMIT_NPROC): _PROCESSES_MIN,
    int(resource.RLIMIT_FSIZE): 0,
    int(resource.RLIMIT_CORE): 0,
}
"""Limits that a starter bears itself, and the least of each with which it can still work."""
_OWN: Final = frozenset({"join", "kill", "uid", "gid", "own"})
"""In what alone the plans of one recipe differ."""
_alike: Final = operator.attrgetter(
    *(one.name for one in fields(SandboxPlan) if one.name not in _OWN)
)


@dataclass(eq=False, slots=True)
class _Held:
    """The keeper's hold on a starter."""

    pid: int
    control: socket.socket
    bell: int
    ends: ToldEnds
    groups: GroupNumbers
    template: SandboxPlan
    places: tuple[tuple[int, int], ...]
    looked_at: float
    used_at: float
    rung: int = 0
    programs: set[int] = field(default_factory=set[int])


_Template = tuple[object, ...]
"""The hierarchies of which programs join groups, and what their plans have in common (`in_common`)."""


class Starters:
    """All of a keeper; it has one thread.

    Args:
        selector: is told of their bells, with this object as data.
        name: what the list of processes calls them.
        log: takes one line for people.
        clock: seconds.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        name: str,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._selector = selector
        self._name = name
        self._log = log
        self.clock = clock
        self._held: dict[_Template, _Held] = {}
        # Those that start nothing any more, and have programs still.
        self._leaving: list[_Held] = []
        self._owner: dict[int, _Held] = {}
        self._told: deque[ChildEnd] = deque()
        self._pids: set[int] = set()
        self._mounts: dict[str, str] = {}
        self._hierarchies = functools.lru_cache(_JOINS_KEPT)(self._hierarchies_of)
        self._last: tuple[_Template, _Held | None] = ((), None)
        self._bells: dict[int, _Held] = {}
        # Only root's threads lose all rights by becoming another user.
        self._not_before = 0.0 if os.geteuid() == 0 and known_machine() else math.inf

    @property
    def pids(self) -> set[int]:
        """Their processes, those that are ending included."""
        return self._pids

    def start(self, execution: Execution) -> int | None:
        """Start a program as the leader of a session and process group of its own; None where a fork has to.

        Raises:
            SpawnError: a step of the plan failed, the folder or the program cannot be had, or the starter was ended.
        """
        if not _takes(execution):
            return None
        now = self.clock()
        held = self._at_hand(execution.plan, now) or self._get(execution, now)
        if held is None or len(held.programs) >= ENDS_MAX:
            return None
        held.used_at = now
        try:
            return self._ask(held, execution)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise _problem(execution, why or repr(error)) from error

    def signal(self, pid: int, number: int) -> bool:
        """Send a signal to the group of a program by its starter; False where it has none, or none any more."""
        held = self._owner.get(pid)
        if held is None:
            return False
        try:
            held.control.send(words.signal_bytes(pid, number), socket.MSG_NOSIGNAL)
        except OSError:
            self._lose(held)
            return False
        return True

    def hear(self, bell: int) -> None:
        """Take what the starter says that has rung this bell, or is gone."""
        held = self._bells.get(bell)
        if held is None:
            return  # it was lost in this turn
        try:
            rung = os.read(bell, _BELL_BYTES)
        except BlockingIOError:
            return  # that of a starter which was gone in this turn, and whose number is this one's now
        held.rung += len(rung)
        self._take(held)
        if not rung:
            self._lose(held)

    def ended(self) -> Iterator[ChildEnd]:
        """Yield the ends that were told and not yielded yet."""
        while self._told:
            yield self._told.popleft()

    def reaped(self, pid: int) -> None:
        """A child of the keeper has ended, which may be one of them: its programs are the keeper's children now."""
        if pid in self._pids:
            self._pids.discard(pid)
            for held in [one for one in self._all() if one.pid == pid]:
                self._forget(held)

    def look(self) -> None:
        """Kill what was stopped: it would tell no end."""
        for held in self._all():
            if _stopped(held.pid):
                self._log(f"starter {held.pid} was stopped, so it is killed")
                self._lose(held)

    def deadline(self) -> float | None:
        """When `tick` has something to do, by the clock."""
        idle = [held.used_at for held in self._held.values() if not held.programs]
        return min(idle) + IDLE_SECONDS if idle else None

    def tick(self) -> None:
        """Let go of those that had nothing to do for a while."""
        if self._held:
            last = self.clock() - IDLE_SECONDS
            for held in list(self._held.values()):
                if not held.programs and held.used_at <= last:
                    self._retire(held)
        for held in [one for one in self._leaving if not one.programs]:
            self._retire(held)

    def close(self) -> None:
        """Let go of all of them."""
        for held in self._all():
            self._retire(held)

    def _all(self) -> list[_Held]:
        return [*self._held.values(), *self._leaving]

    def _at_hand(self, plan: SandboxPlan, now: float) -> _Held | None:
        """The starter of the last start, if it serves this one, too: most jobs of a node are of one recipe."""
        template, held = self._last
        if (
            held is None
            or now - held.looked_at >= _LOOK_SECONDS
            or template != self._template(plan)
        ):
            return None
        return held

    def _template(self, plan: SandboxPlan) -> _Template:
        return (self._hierarchies(plan.join), *in_common(plan))

    def _hierarchies_of(self, join: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self._hierarchy, join))

    def _hierarchy(self, path: str) -> str:
        """The mount point of the hierarchy of a group's file; empty where that is not known."""
        above = path.rsplit("/", 2)[0]
        known = self._mounts.get(above)
        if known is None:
            own = _own_group(path)
            known = self._mounts[above] = "" if own is None else str(own.mount)
        return known

    def _get(self, execution: Execution, now: float) -> _Held | None:
        plan = execution.plan
        if now < self._not_before or not _bears(plan) or "" in self._hierarchies(plan.join):
            return None
        template = self._template(plan)
        held = self._held.get(template)
        if held is not None and now - held.looked_at >= _LOOK_SECONDS:
            held.looked_at = now
            if held.places != _places(held.template):
                self._leaving.append(self._held.pop(template))
                self._last = ((), None)
                held = None
        if held is None:
            if len(self._held) + len(self._leaving) >= STARTERS_MAX:
                free = [one for one in self._all() if not one.programs]
                if not free:
                    return None
                self._retire(min(free, key=lambda one: one.used_at))
            held = self._make(execution, now)
            if held is None:
                return None
            self._held[template] = held
        self._last = template, held
        return held

    def _make(self, execution: Execution, now: float) -> _Held | None:
        homes: list[str] = []
        for path in execution.plan.join:
            own = _own_group(path)
            if own is None:
                return None
            homes.append(str(own.folder / Path(path).name))
        template = template_of(execution.plan)
        places = _places(template)
        bell, rings = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        ends = ToldEnds()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * words.PACKET_BYTES)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _WAIT)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            # It bears a mark, so that a keeper that follows finds it.
            with theirs, strays.worn(execution.mark):
                pid = os.fork()
                if pid == 0:
                    starter.be_starter(template, homes, theirs, rings, ends, self._name)
        except OSError:
            ours.close()
            os.close(bell)
            ends.close()
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(rings)
        groups = GroupNumbers(_files(template) - _FILES_OWN)
        held = _Held(pid, ours, bell, ends, groups, template, places, now, now)
        self._pids.add(pid)
        packet = self._wait(held)
        if packet != words.ready():
            why = words.read_why(packet) or "it did not answer"
            self._log(
                f"programs are started by forks of the keeper: a starter cannot be had: {why}"
            )
            self._not_before = now + _AGAIN_SECONDS
            _kill(pid)
            ours.close()
            os.close(bell)
            ends.close()
            return None
        self._bells[bell] = held
        self._selector.register(bell, selectors.EVENT_READ, self)
        return held

    def _ask(self, held: _Held, execution: Execution) -> int | None:
        plan = execution.plan
        known = not plan.join or held.groups.known(plan.join)
        said = self._order(held, execution, bring=not known)
        if said is not None and said[:1] == words.REFUSED and known and plan.join:
            # Its groups may have been removed since they were opened; others may have their names.
            said = self._order(held, execution, bring=True)
        if said is None:
            return None
        match said[:1]:
            case words.STARTED:
                pid = words.read_started(said)
                while pid in self._owner and held.ends.left():
                    self._take_one(held)  # that of before, which was told first
                held.programs.add(pid)
                self._owner[pid] = held
                return pid
            case words.REFUSED:
                return None
            case words.FAILED:
                why, group = words.read_failed(said)
                if group is not None:
                    why = f"cannot join the control group {plan.join[group]}: {why}"
                raise _problem(execution, why)
            case _:
                self._log(f"starter {held.pid} ended as it started {execution.attempt}")
                self._lose(held)
                _end(plan)
                raise _problem(execution, "its starter was ended as the program began")

    def _order(self, held: _Held, execution: Execution, *, bring: bool) -> bytes | None:
        """What a starter answers to an order; nothing if it does not, and None from one that never heard of it."""
        plan = execution.plan
        number = held.groups.number(plan.join) if plan.join else _NO_GROUPS
        packet = words.order_bytes(
            words.Order(
                plan.uid,
                plan.gid if plan.gid >= 0 else os.getgid(),
                execution.mark,
                number,
                len(plan.join) if bring else 0,
                [theirs for _, theirs in execution.descriptors],
                execution.cwd,
                execution.stdin,
                execution.argv,
                execution.env,
            )
        )
        if len(packet) > words.PACKET_BYTES:
            return None
        files = opened(plan.join) if bring else ()
        try:
            descriptors = [*files, *[ours for ours, _ in execution.descriptors]]
            socket.send_fds(held.control, [packet], descriptors)
        except OSError:
            self._lose(held)
            return None
        finally:
            for descriptor in files:
                os.close(descriptor)
        if plan.join:
            held.groups.has(plan.join, number)
        return self._wait(held)

    def _wait(self, held: _Held) -> bytes:
        """What it answers; nothing where it does not."""
        give_up_at = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):  # for as long as `_WAIT` says
                return _receive(held.control)
            if _stopped(held.pid) or time.monotonic() >= give_up_at:
                return b""

    def _take(self, held: _Held) -> None:
        """Take the ends that it has rung for, whose programs are reaped."""
        while held.ends.taken < held.rung:
            self._take_one(held)

    def _take_one(self, held: _Held) -> None:
        end = held.ends.take()
        held.programs.discard(end.pid)
        held.used_at = self.clock()
        if self._owner.pop(end.pid, None) is not None:
            self._told.append(end)

    def _retire(self, held: _Held) -> None:
        with contextlib.suppress(OSError):
            held.control.send(words.RETIRE, socket.MSG_NOSIGNAL)
        if not self._forget(held):
            _kill(held.pid)

    def _lose(self, held: _Held) -> None:
        """Take the programs of one that is gone, or has to go."""
        _kill(held.pid)
        self._forget(held)

    def _forget(self, held: _Held) -> bool:
        """Take what it still says until it is gone, and say whether it is; the keeper sees the other ends itself."""
        for template, one in tuple(self._held.items()):
            if one is held:
                del self._held[template]
        if self._last[1] is held:
            self._last = ((), None)
        if held in self._leaving:
            self._leaving.remove(held)
        if self._bells.pop(held.bell, None) is not None:
            self._selector.unregister(held.bell)
        gone = False
        give_up_at = time.monotonic() + _END_SECONDS
        while not gone and time.monotonic() < give_up_at:
            with contextlib.suppress(BlockingIOError):
                gone = not _receive(held.control)
        while held.ends.left():
            self._take_one(held)
        held.control.close()
        os.close(held.bell)
        held.ends.close()
        for pid in held.programs:
            self._owner.pop(pid, None)
        return gone


def suits(execution: Execution) -> bool:
    """Whether a starter does exactly what a fork of the keeper would do for this program."""
    return _takes(execution) and _bears(execution.plan)


def _takes(execution: Execution) -> bool:
    """Whether what is the program's own is what a starter does."""
    plan = execution.plan
    if not (plan.attempts and plan.uid > 0 and plan.no_new_privileges) or plan.wrap:
        return False
    below = plan.attempts + "/"
    for rule in plan.own:
        if not rule.path.startswith(below):
            return False
    for _, theirs in execution.descriptors:
        # What it holds meanwhile lies at the lowest numbers that are free, so none of a program's may be among them.
        if theirs > _HIGHEST:
            return False
    return len(execution.argv) + len(execution.env) < _WORDS_MAX


def _bears(plan: SandboxPlan) -> bool:
    """Whether a starter can work within the limits of its programs."""
    for which, amount in plan.limits:
        least = _HOLDABLE.get(which)
        if least is None or 0 <= amount < least:
            return False
    return _files(plan) >= _FILES_MIN


def _files(plan: SandboxPlan) -> int:
    """How many files a starter may have open, and its programs."""
    own = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    asked = [files for which, files in plan.limits if which == resource.RLIMIT_NOFILE]
    return min([own, *(files for files in asked if files >= 0)])


def template_of(plan: SandboxPlan) -> SandboxPlan:
    """What a starter of such plans is sealed by."""
    own = (FilesRule(plan.attempts, write=True),) if plan.own else ()
    return replace(plan, join=(), kill=(), uid=-1, gid=-1, own=own)


def in_common(plan: SandboxPlan) -> tuple[object, ...]:
    """What a plan has alike with all others of its recipe: equal ones have one template, and a tuple costs less."""
    return (bool(plan.own), *_alike(plan))


def _own_group(path: str) -> OwnGroup | None:
    """The group of this process in the hierarchy of a group's file; the innermost one by its mount point."""
    found = [one for one in own_groups() if path.startswith(f"{one.mount}/")]
    return max(found, key=lambda one: len(str(one.mount)), default=None)


def _places(plan: SandboxPlan) -> tuple[tuple[int, int], ...]:
    """What lies at the paths of rules now."""
    found: list[tuple[int, int]] = []
    for rule in (*plan.files, *plan.own):
        try:
            status = os.lstat(rule.path)
        except OSError:
            found.append((0, 0))
        else:
            found.append((status.st_dev, status.st_ino))
    return tuple(found)


def _receive(control: socket.socket, flags: int = 0) -> bytes:
    """One packet; nothing where the other end is gone.

    Raises:
        BlockingIOError: there is none yet.
    """
    try:
        return control.recv(words.ANSWER_BYTES, flags)
    except ConnectionError:
        return b""


def _stopped(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _end(plan: SandboxPlan) -> None:
    """End what may have begun of a program."""
    give_up_at = time.monotonic() + _END_SECONDS
    while Remains.of(plan).end() and time.monotonic() < give_up_at:
        time.sleep(_END_LOOK_SECONDS)


def _problem(execution: Execution, why: str) -> SpawnError:
    return SpawnError(f"cannot start {execution.argv[0]!r} in {execution.cwd!r}: {why}")
