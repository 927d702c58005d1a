"""The starter: a process that is sealed as its programs are, and starts them without a copy of an interpreter.

Theory. What a plan says of a program that is a job's is done by a process to itself (`edge_agent.sandbox.entry`), and
most of it for good: no_new_privs, Landlock, seccomp, hard limits. In a fork of the keeper that is done for each program
anew, by an interpreter that is copied for it. But all of it is the same for all programs of a recipe. So one process
does it once, and what it starts by posix_spawn(3), which copies nothing, inherits it. What is each program's own can be
put off again, and is: its user, its groups, its folder, its mark.

Rules:

1. **A thread becomes the job, never the process.** The first thread seals the process, makes *hands*
   (`edge_agent.keeper.starter_hand`), and never starts a program. One hand is **on duty**: it waits for orders and
   ends. For each program a hand joins the program's control groups, puts a scope of Landlock of its own around itself,
   becomes the user, opens the folder and the standard input with the user's rights, starts the program, becomes root
   again, and leaves the groups. So two programs of one starter can reach each other's abstract sockets as little as
   those of two. Where the one on duty is not free (its last program still runs), it hands the order, and the duty, to
   one that is.
2. **The process is root's at every moment**, and what a program may do to a process it may not do to this one: kill(2)
   asks for the user of the first thread. While a hand is the user it keeps 0 as its saved user, so ptrace(2) and
   prlimit(2) are refused for it, and it has no capability in effect, so that the kernel opens with the job's rights
   alone.
3. **What cannot be put off again ends the starter**: it never goes on in a program's group or as its user.
4. **It ends nothing that others have started.** A program that is there when its starter is killed becomes the keeper's
   own child (PR_SET_CHILD_SUBREAPER) and goes on. When the keeper is gone, the starter ends all its programs, by group
   and by user, and itself. It hears of that by the end of its socket; the kernel takes back the signal for a parent's
   end (PR_SET_PDEATHSIG) as often as a process changes its user.
5. **It tells an end, then reaps, and then rings**, so that a program whose end was not told is its parent's to see, the
   keeper's if need be; and the keeper, which the bell wakes, never takes the reaped leader for something that is left.
   What a program leaves is its keeper's to end, by its user.
6. **Signals come from the first thread**, which is in no program's scope. It alone sends them to programs' groups,
   while the hand on duty, which reaps, waits for it; so their numbers are theirs.

What remains: from the first instruction of a program until its hand is root again, some microseconds, the program may
send a signal to that thread (tkill(2)), of which SIGKILL and SIGSTOP cannot be held off. The one ends the starter, the
other makes the keeper do so at once; the program is ended, its attempt fails with START, and nothing else notices. What
else it may change of the thread ends with it: such a hand starts nothing more.

Example: 200 programs of a recipe. The first one waits for a starter, about 4 ms; the others cost 0.1 ms beside what the
kernel takes to execute a program.

Sources: credentials(7), capabilities(7) "Effect of user ID changes on capabilities", landlock(7), kill(2), prlimit(2),
signalfd(2); `check_kill_permission` in kernel/signal.c, `cgroup1_procs_write` in kernel/cgroup/cgroup-v1.c of Linux.
Android's zygote is one of these without rule 1.
"""

import _thread
import contextlib
import ctypes
import errno
import gc
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from edge_agent.keeper import child, strays
from edge_agent.keeper import starter_words as words
from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.execution import DEFAULT_SIGNALS, said
from edge_agent.keeper.own_process import call_this_process, close_all_but
from edge_agent.keeper.starter_hand import NO_GROUP, Hand, HandOutcome, HandSeal, end_user
from edge_agent.keeper.starter_words import Order
from edge_agent.keeper.told_ends import ToldEnds
from edge_agent.sandbox import entry, landlock
from edge_agent.sandbox.plan import SandboxPlan

_DESCRIPTORS: Final = 253  # SCM_MAX_FD of net/scm.h
_STACK_BYTES: Final = 256 * 1024
_WAITING_MAX: Final = 8
"""How many hands wait for their turn; one that would be another one ends."""
_LEFT_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.01
_DUMPABLE: Final = 4  # PR_SET_DUMPABLE
_SIGNAL_BYTES: Final = 128  # struct signalfd_siginfo
_SHORT: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EBADF})
"""Of these the starter may be short, and not the program: a fork of the keeper says whether it is."""
_GONE: Final = frozenset({errno.ENODEV})
"""Of a group's file that was opened, and whose group has been removed since: there may be another one of its name."""

_LIBC: Final = ctypes.PyDLL(None, use_errno=True)
_INT_BYTES: Final = struct.calcsize("i")
_FILES_ROOM: Final = socket.CMSG_LEN(_DESCRIPTORS * _INT_BYTES)


def be_starter(
    plan: SandboxPlan,
    homes: Sequence[str],
    control: socket.socket,
    bell: int,
    ends: ToldEnds,
    name: str,
) -> None:
    """Be a starter, in a fork of the keeper; does not return.

    Args:
        plan: what all its programs have; its user, groups to join and folders to kill are each program's own.
        homes: files by which it comes back into its own control groups, in the order in which programs join theirs.
        control: where orders come from.
        bell: a pipe into which a byte is written for each end, once it was told and its program reaped.
        ends: what takes the ends.
        name: what the list of processes calls it.
    """
    try:
        _Starter(plan, homes, control, bell, ends, name).run()
    except BaseException:  # noqa: BLE001 - the root of a process; its programs go to the keeper
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(0)


class _Starter:
    def __init__(
        self,
        plan: SandboxPlan,
        homes: Sequence[str],
        control: socket.socket,
        bell: int,
        ends: ToldEnds,
        name: str,
    ) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        for number in DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        close_all_but({0, 1, 2, control.fileno(), bell})
        # What programs get never lies at a number of theirs.
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for place in (0, 1):
            os.dup2(nothing, place, inheritable=False)
        call_this_process(name)
        self._ended = _hear_ends()
        gc.freeze()
        _thread.stack_size(_STACK_BYTES)
        self._control = control
        self._bell = bell
        self._ends = ends
        self._programs: dict[int, int] = {}
        self._groups: dict[int, Sequence[int]] = {}
        self._seal = HandSeal(nothing=nothing)
        # Hands that wait for their turn, and what the first thread is to do.
        self._waiting: list[Hand] = []
        self._wanted: Callable[[], object] = self._reap
        self._asked, self._done = _thread.allocate_lock(), _thread.allocate_lock()
        self._asked.acquire()
        self._done.acquire()
        # Of the hand on duty; ends come first, since they may make it free.
        self._poller = select.poll()
        self._poller.register(self._ended, select.POLLIN)
        self._poller.register(self._control, select.POLLIN)
        self._order = bytearray(words.PACKET_BYTES)
        self._seal_off(plan, homes)

    def _seal_off(self, plan: SandboxPlan, homes: Sequence[str]) -> None:
        """Do once what all programs have, in the order of `entry.execute`."""
        try:
            for home in homes:
                self._seal.homes.append(os.open(home, os.O_WRONLY | os.O_CLOEXEC))
                os.write(self._seal.homes[-1], b"0")
            entry.raise_score(plan.oom_score)
            entry.raise_limits(plan.limits)
            os.setgroups(plan.groups)
            entry.leave_programs_nothing()
            entry.gain_no_privileges()
            _LIBC.prctl(_DUMPABLE, 0, 0, 0, 0)
            if plan.scoped:
                self._seal.scopes = landlock.scopes()
            entry.narrow(replace(plan, scoped=False))  # each program has a scope of its own
            entry.lower(plan.limits)
        except (OSError, ValueError, entry.EntryError) as error:
            self._say(words.cannot(said(error)))
            os._exit(0)

    # ---- the first thread

    def run(self) -> None:
        """Make a hand, and do what hands ask the first thread for."""
        first = self._new_hand()
        if first is None:
            self._say(words.cannot("there is no thread for it"))
            return
        self._say(words.ready())
        first.turn.release()
        while True:
            self._asked.acquire()
            self._wanted()
            self._done.release()

    def _new_hand(self) -> Hand | None:
        hand = Hand(self._seal)
        try:
            _thread.start_new_thread(self._serve, (hand,))
        except RuntimeError:  # as which Python tells that there is no thread
            return None
        return hand

    # ---- hands

    def _by_first(self, wanted: Callable[[], object]) -> None:
        """Have the first thread do something, and wait until it has."""
        self._wanted = wanted
        self._asked.release()
        self._done.acquire()

    def _serve(self, hand: Hand) -> None:
        """Be a hand: on duty whenever it is its turn, until it hands the duty on for good."""
        try:
            hand.turn.acquire()
            while self._be_on_duty(hand):
                hand.turn.acquire()
        except BaseException:  # noqa: BLE001 - the root of a thread; the programs go to the keeper
            traceback.print_exc(file=sys.stderr)
            os._exit(0)

    def _be_on_duty(self, hand: Hand) -> bool:
        """Obey and reap until another hand is on duty; returns whether this one waits for its next turn."""
        if hand.task is not None:
            task, hand.task = hand.task, None
            self._start(hand, *task)
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._ended:
                    os.read(self._ended, _SIGNAL_BYTES)
                    self._reap()
                    continue
                order, descriptors = self._obey()
                if order is None:
                    continue
                groups, descriptors = self._groups_of(order, descriptors)
                if hand.free(self._programs):
                    self._start(hand, order, groups, descriptors)
                    continue
                other = self._next_hand()
                if other is None:
                    self._say(words.refused("there is no thread for it"))
                    _close(descriptors)
                    continue
                other.task = order, groups, descriptors
                waits = not hand.spent and len(self._waiting) < _WAITING_MAX
                if waits:
                    self._waiting.append(hand)
                other.turn.release()
                return waits

    def _next_hand(self) -> Hand | None:
        """One that is free, a new one if need be; None where there is no thread for it."""
        for hand in self._waiting:
            if hand.free(self._programs):
                self._waiting.remove(hand)
                return hand
        made: list[Hand | None] = []
        self._by_first(lambda: made.append(self._new_hand()))
        return made[0]

    def _obey(self) -> tuple[Order | None, Sequence[int]]:
        """Do what the keeper says; an order to start something is returned, with its descriptors."""
        packet, descriptors = self._hear()
        match packet[:1]:
            case words.START:
                return words.read_order(packet), descriptors
            case b"":
                self._by_first(self._end_all)
                os._exit(0)
            case words.RETIRE:
                os._exit(0)
            case words.SIGNAL:
                pid, number = words.read_signal(packet)
                if pid in self._programs:
                    self._by_first(lambda: child.signal_group(pid, number))
                return None, descriptors
            case other:
                raise ValueError(f"the keeper says {other!r}")

    def _hear(self) -> tuple[bytes, Sequence[int]]:
        """What the keeper says, and the descriptors that it sends; `socket.recv_fds` passes no flags on."""
        try:
            size, parts, _, _ = self._control.recvmsg_into(
                (self._order,), _FILES_ROOM, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return b"", ()  # a keeper that was killed before it took all that was told
        packet = bytes(memoryview(self._order)[:size])
        if not parts:
            return packet, ()
        data = parts[0][2]
        return packet, struct.unpack(f"{len(data) // _INT_BYTES}i", data)

    def _groups_of(
        self, order: Order, descriptors: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        """The files of the groups that a program joins, which its order may bring, and what else it brings."""
        if order.groups < 0:
            return (), descriptors
        if not order.join:
            return self._groups[order.groups], descriptors
        _close(self._groups.pop(order.groups, ()))
        groups = self._groups[order.groups] = descriptors[: order.join]
        return groups, descriptors[order.join :]

    def _start(
        self, hand: Hand, order: Order, groups: Sequence[int], descriptors: Sequence[int]
    ) -> None:
        # For good: it is one of this keeper's, as that of the starter has to be.
        strays.wear(order.mark)
        try:
            outcome = hand.start(order, groups, descriptors)
        except OSError:
            os._exit(0)  # rule 3; the keeper looks what there is of the program
        os.chdir("/")
        self._answer(order, outcome)
        _close(descriptors)

    def _answer(self, order: Order, outcome: HandOutcome) -> None:
        error, group = outcome.error, outcome.group
        if outcome.pid:
            self._programs[outcome.pid] = order.uid
            self._say(words.started(outcome.pid))
        elif isinstance(error, OSError) and error.errno in (_SHORT if group == NO_GROUP else _GONE):
            self._say(words.refused(said(error)))
        elif error is not None:
            self._say(words.failed(said(error), group))

    def _reap(self) -> None:
        """Rule 5."""
        told = 0
        while (end := child.next_end()) is not None:
            self._ends.tell(end)
            child.reap(end.pid)
            self._programs.pop(end.pid, None)
            told += 1
        if told:
            with contextlib.suppress(OSError):  # a keeper that is gone hears no bell
                os.write(self._bell, b"!" * told)

    def _end_all(self) -> None:
        """End all that is there of the programs, for a while; by the first thread."""
        give_up_at = boottime() + _LEFT_SECONDS
        over = _thread.allocate_lock()

        def end(uid: int) -> None:
            end_user(uid)
            over.release()

        while self._programs and boottime() < give_up_at:
            for pid, uid in tuple(self._programs.items()):
                child.signal_group(pid, signal.SIGKILL)
                over.acquire()
                _thread.start_new_thread(end, (uid,))
                over.acquire()
                over.release()
            self._reap()
            select.select([self._ended], [], [], _LOOK_SECONDS)

    def _say(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # a keeper that is gone does not listen
            self._control.send(packet, socket.MSG_NOSIGNAL)


def _hear_ends() -> int:
    """A file from which can be read that a child has ended (signalfd(2)), for which SIGCHLD has to be blocked."""
    mask = (ctypes.c_uint64 * 16)(1 << (signal.SIGCHLD - 1))
    descriptor = int(_LIBC.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        why = ctypes.get_errno()
        raise OSError(why, f"ends cannot be heard of: {os.strerror(why)}")
    return descriptor


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
