"""The starter: a process that is sealed as its programs are, and starts them without a copy of an interpreter.

Theory. What a plan says of a program that is a job's is done by a process to itself (`edge_agent.sandbox.entry`), and
most of it for good: no_new_privs, Landlock, seccomp, hard limits. In a fork of the keeper that is done for each program
anew, by an interpreter that is copied for it. But all of it is the same for all programs of a recipe. So one process
does it once, and what it starts by posix_spawn(3), which copies nothing, inherits it. What is each program's own can be
put off again, and is: its user, its groups, its folder, its mark.

Rules:

1. **A thread becomes the job, never the process.** Users, groups and Landlock belong to a thread (credentials(7)), and
   what a thread starts inherits its own. For each program there is a new thread, which joins the program's control
   groups, puts a scope of Landlock of its own around itself, becomes the user, opens the folder and the standard input
   with the user's rights, starts the program, becomes root again, leaves the groups, and ends. So two programs of one
   starter can reach each other's abstract sockets as little as those of two.
2. **The process is root's at every moment**, and what a program may do to a process it may not do to this one: kill(2)
   asks for the user of the first thread. While the other one is the user it keeps 0 as its saved user, so ptrace(2)
   and prlimit(2) are refused for it, and it has no capability in effect, so that the kernel opens with the job's
   rights alone.
3. **What cannot be put off again ends the starter**: it never goes on in a program's group or as its user.
4. **It ends nothing that others have started.** A program that is there when its starter is killed becomes the keeper's
   own child (PR_SET_CHILD_SUBREAPER) and goes on. When the keeper is gone, the starter ends all its programs, by group
   and by user, and itself. It hears of that by the end of its socket; the kernel takes back the signal for a parent's
   end (PR_SET_PDEATHSIG) as often as a process changes its user.
5. **It tells an end, then reaps, and then rings**, so that a program whose end was not told is its parent's to see, the
   keeper's if need be; and the keeper, which the bell wakes, never takes the reaped leader for something that is left.
   The starter alone signals its programs' groups, whose numbers hence are theirs.

What remains: from the first instruction of a program until its thread is root again, some microseconds, the program may
send a signal to that thread (tkill(2)), of which SIGKILL and SIGSTOP cannot be held off. The one ends the starter, the
other makes the keeper do so at once; the program is ended, its attempt fails with START, and nothing else notices.

Example: 200 programs of a recipe. The first one waits for a starter, about 4 ms; the others cost 0.1 ms beside what the
kernel takes to execute a program.

Sources: credentials(7), capabilities(7) "Effect of user ID changes on capabilities", landlock(7), kill(2), prlimit(2);
`check_kill_permission` in kernel/signal.c, `cgroup1_procs_write` in kernel/cgroup/cgroup-v1.c of Linux. Android's
zygote is one of these without rule 1.
"""

import _thread
import contextlib
import ctypes
import errno
import gc
import os
import platform
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.keeper import child, strays
from edge_agent.keeper import starter_words as words
from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.execution import DEFAULT_SIGNALS, open_plain, said
from edge_agent.keeper.own_process import call_this_process, close_all_but
from edge_agent.keeper.starter_words import Order
from edge_agent.sandbox import entry, landlock
from edge_agent.sandbox.plan import SandboxPlan

_CALLS: Final = {"x86_64": (117, 119), "aarch64": (147, 149)}
"""setresuid and setresgid of asm/unistd_64.h and asm-generic/unistd.h: those of the C library are for all threads."""
_DESCRIPTORS: Final = 253  # SCM_MAX_FD of net/scm.h
_STACK_BYTES: Final = 256 * 1024
_LEFT_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.01
_DUMPABLE: Final = 4  # PR_SET_DUMPABLE
_SHORT: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EBADF})
"""Of these the starter may be short, and not the program: a fork of the keeper says whether it is."""
_GONE: Final = frozenset({errno.ENODEV})
"""Of a group's file that was opened, and whose group has been removed since: there may be another one of its name."""
_NO_GROUP: Final = -1

_LIBC: Final = ctypes.PyDLL(None, use_errno=True)
_SYSCALL: Final = _LIBC.syscall
_SYSCALL.restype = ctypes.c_long
_SYSCALL.argtypes = [ctypes.c_long] * 4
_INT_BYTES: Final = struct.calcsize("i")
_FILES_ROOM: Final = socket.CMSG_LEN(_DESCRIPTORS * _INT_BYTES)


def known_machine() -> bool:
    """Whether the numbers of its system calls are known here."""
    return platform.machine() in _CALLS


def be_starter(
    plan: SandboxPlan, homes: Sequence[str], control: socket.socket, bell: int, name: str
) -> None:
    """Be a starter, in a fork of the keeper; does not return.

    Args:
        plan: what all its programs have; its user, groups to join and folders to kill are each program's own.
        homes: files by which it comes back into its own control groups, in the order in which programs join theirs.
        control: where orders come from.
        bell: a pipe into which a byte is written for each end, once it was told and its program reaped.
        name: what the list of processes calls it.
    """
    try:
        _Starter(plan, homes, control, bell, name).run()
    except BaseException:  # noqa: BLE001 - the root of a process; its programs go to the keeper
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(0)


@dataclass(slots=True)
class _Outcome:
    """What a thread leaves: the program, or why there is none, and whether the starter is what it was."""

    pid: int = 0
    error: BaseException | None = None
    group: int = _NO_GROUP
    whole: bool = False


class _Starter:
    def __init__(
        self,
        plan: SandboxPlan,
        homes: Sequence[str],
        control: socket.socket,
        bell: int,
        name: str,
    ) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {signal.SIGCHLD})
        for number in DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        close_all_but({0, 1, 2, control.fileno(), bell})
        # What programs get never lies at a number of theirs.
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for place in (0, 1):
            os.dup2(self._nothing, place, inheritable=False)
        call_this_process(name)
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        gc.freeze()
        _thread.stack_size(_STACK_BYTES)
        self._control = control
        self._bell = bell
        self._programs: dict[int, int] = {}
        self._done = _thread.allocate_lock()
        self._homes: list[int] = []
        self._scopes = -1
        self._setresuid, self._setresgid = _CALLS[platform.machine()]
        self._order = bytearray(words.PACKET_BYTES)
        self._seal(plan, homes)

    def _seal(self, plan: SandboxPlan, homes: Sequence[str]) -> None:
        """Do once what all programs have, in the order of `entry.execute`."""
        try:
            for home in homes:
                self._homes.append(os.open(home, os.O_WRONLY | os.O_CLOEXEC))
                os.write(self._homes[-1], b"0")
            entry.raise_score(plan.oom_score)
            entry.raise_limits(plan.limits)
            os.setgroups(plan.groups)
            entry.leave_programs_nothing()
            entry.gain_no_privileges()
            _LIBC.prctl(_DUMPABLE, 0, 0, 0, 0)
            if plan.scoped:
                self._scopes = landlock.scopes()
            entry.narrow(replace(plan, scoped=False))  # each program has a scope of its own
            entry.lower(plan.limits)
        except (OSError, ValueError, entry.EntryError) as error:
            self._say(words.cannot(said(error)))
            os._exit(0)
        self._say(words.ready())

    def run(self) -> None:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        """Do what the keeper says; returns whether there is more to do."""
        packet, descriptors = self._hear()
        try:
            match packet[:1]:
                case b"":
                    self._end_all()
                    return False
                case words.RETIRE:
                    return False
                case words.SIGNAL:
                    pid, number = words.read_signal(packet)
                    if pid in self._programs:
                        child.signal_group(pid, number)
                case words.START:
                    self._start(words.read_order(packet), descriptors)
                case other:
                    raise ValueError(f"the keeper says {other!r}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

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

    def _start(self, order: Order, descriptors: Sequence[int]) -> None:
        outcome = _Outcome()
        strays.wear(
            order.mark
        )  # for good: it is one of this keeper's, as that of the starter has to be
        self._done.acquire()
        try:
            _thread.start_new_thread(self._run_in_thread, (order, descriptors, outcome))
            self._done.acquire()
        except RuntimeError as none:  # as which Python tells that there is no thread
            self._say(words.refused(str(none)))
            return
        finally:
            self._done.release()
        if not outcome.whole:
            os._exit(0)  # rule 3; the keeper looks what there is of the program
        os.chdir("/")
        error, group = outcome.error, outcome.group
        if outcome.pid:
            self._programs[outcome.pid] = order.uid
            self._say(words.started(outcome.pid))
        elif isinstance(error, OSError) and error.errno in (
            _SHORT if group == _NO_GROUP else _GONE
        ):
            self._say(words.refused(said(error)))
        elif error is not None:
            self._say(words.failed(said(error), group))

    def _run_in_thread(self, order: Order, descriptors: Sequence[int], outcome: _Outcome) -> None:
        try:
            try:
                self._become(order, descriptors, outcome)
                outcome.pid = self._spawn(order, descriptors[order.join :])
            except BaseException as error:  # noqa: BLE001 - said by the other thread
                outcome.error = error
            self._back()
            outcome.whole = True
        finally:
            self._done.release()

    def _become(self, order: Order, descriptors: Sequence[int], outcome: _Outcome) -> None:
        for group in range(order.join):
            outcome.group = group
            os.write(descriptors[group], b"0")
        outcome.group = _NO_GROUP
        if self._scopes >= 0:
            landlock.enter(self._scopes)
        self._call(self._setresgid, order.gid, 0)
        self._call(self._setresuid, order.uid, 0)

    def _spawn(self, order: Order, descriptors: Sequence[int]) -> int:
        os.chdir(order.cwd)
        read = open_plain(order.stdin, os.O_RDONLY) if order.stdin else self._nothing
        pairs = [(read, 0), *zip(descriptors, order.numbers, strict=True)]
        files = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in pairs]
        try:
            return child.begin(order.argv, order.env, files)
        finally:
            if order.stdin:
                os.close(read)

    def _back(self) -> None:
        """Be root again and leave the groups; a thread that ends as the user would count as one of its processes."""
        self._call(self._setresuid, 0, 0)
        self._call(self._setresgid, 0, 0)
        for home in self._homes:
            os.write(home, b"0")

    @staticmethod
    def _call(number: int, real: int, saved: int) -> None:
        """Give this thread a real and an effective user, or group, and a saved one to come back by."""
        if _SYSCALL(number, real, real, saved) != 0:
            why = ctypes.get_errno()
            raise OSError(why, f"cannot become {real}: {os.strerror(why)}")

    def _reap(self) -> None:
        """Rule 5."""
        told = 0
        while (end := child.next_end()) is not None:
            child.signal_group(end.pid, signal.SIGKILL)
            self._say(words.ended(end.pid, end.status, exited=end.exited))
            child.reap(end.pid)
            self._programs.pop(end.pid, None)
            told += 1
        if told:
            with contextlib.suppress(OSError):  # a keeper that is gone hears no bell
                os.write(self._bell, b"!" * told)

    def _end_all(self) -> None:
        """End all that is there of the programs, for a while."""
        give_up_at = boottime() + _LEFT_SECONDS
        while self._programs and boottime() < give_up_at:
            for pid, uid in self._programs.items():
                child.signal_group(pid, signal.SIGKILL)
                self._done.acquire()
                _thread.start_new_thread(self._end_user_in_thread, (uid,))
                self._done.acquire()
                self._done.release()
            self._reap()
            select.select([self._wake], [], [], _LOOK_SECONDS)

    def _end_user_in_thread(self, uid: int) -> None:
        """Kill all that a user runs, as that user; this thread ends with its process, and so needs no way back."""
        try:
            self._call(self._setresuid, uid, 0)
            if os.getresuid() == (uid, uid, 0):
                os.kill(-1, signal.SIGKILL)
        except OSError:
            pass  # there is none
        finally:
            with contextlib.suppress(OSError):
                self._call(self._setresuid, 0, 0)
            self._done.release()

    def _say(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # a keeper that is gone does not listen
            self._control.send(packet, socket.MSG_NOSIGNAL)
