"""The guard of a program that may not run twice: a process that ends it when renewals stop.

The controller starts a replacement once the lease of this node has run out. Agent and keeper may both be killed,
stopped or stuck then, so neither can be the one that ends the program. The guard is: a small process, forked by the
keeper, in a session of its own, that does nothing else.

Rules:

1. **It holds a moment**, on the clock of the machine that also counts sleep, and never a length of time. A renewal that
   waited in a socket, or was written by a process that stood still, cannot revive a lease that has run out.
2. **It is the parent of the program and adopts its orphans**, so it finds every process of the program, also with the
   keeper dead. When the moment has come, all of them are killed.
3. **Without its keeper it ends the program at once**: no agent would learn how it went, and none could renew it.
4. **Without its guard the program ends**: the kernel kills it (PR_SET_PDEATHSIG), and the keeper what is left.
5. **It looks every `LOOK_SECONDS`**, so that a board that stood still as a whole ends the program within that time.

Why no overlap: the agent counts from when it sent what the controller acknowledged, and the controller from when that
arrived, so `until` is before the controller's moment, whatever waited how long on its way; and between the two lies the
lease's margin. What remains possible: a whole board that is frozen and thawed runs the program until its guard has
had its turn (Gray and Cheriton, Leases, SOSP 1989, §3.1 have the same for clocks that fail).

The program's leader is not reaped before its guard ends, so that its number cannot become another's meanwhile.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from edge_agent.keeper import strays
from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.execution import Execution, SpawnError, spawn
from edge_agent.keeper.own_process import call_this_process, close_all_but
from edge_agent.keeper.remains import Remains
from edge_agent.keeper.wrapping import signal_wrapped

LOOK_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 0.5
"""Between SIGTERM and SIGKILL when the keeper is gone, if the lease lasts that long."""

_START_SECONDS: Final = 6.0  # the program has five of them
_LEFT_SECONDS: Final = 2.0
_MOMENT: Final = struct.Struct("=d")
_PACKET_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a guarded program ended; `left` says what of it could not be ended, else it is empty."""

    exit_code: int | None
    signal: int | None
    lease_ended: bool = False
    left: str = ""


class GuardError(Exception):
    """The program could not be started under a guard."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The keeper's hold on a guard: its process, its program's, and the socket to it."""

    pid: int
    program: int
    control: socket.socket

    def renew(self, until: float) -> None:
        """Let the program run until a moment; a guard that does not listen keeps to the one before."""
        with contextlib.suppress(OSError):
            self.control.send(_MOMENT.pack(until))

    def go_on(self) -> None:
        """Let a guard that was stopped go on: its program has been killed, and it should say so."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGCONT)

    def outcome(self) -> Outcome | None:
        """What an ended guard said last; None when it was killed."""
        try:
            return Outcome(**json.loads(self.control.recv(_PACKET_BYTES)))
        except (OSError, ValueError):
            return None
        finally:
            self.control.close()


def start_guard(execution: Execution, until: float) -> Guard:
    """Start a program under a guard, which kills it at `until` unless that is renewed.

    Raises:
        GuardError: The folder or the program cannot be had, or no process.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        # It bears the mark itself, so that a keeper that follows finds it before its program is there, too.
        with theirs, strays.worn(execution.mark):
            # Forked and not spawned: it shares its memory with the keeper, which has one thread.
            pid = os.fork()
            if pid == 0:
                _be(execution, theirs, until)
        ours.settimeout(_START_SECONDS)
        try:
            said = json.loads(ours.recv(_PACKET_BYTES))
        except (OSError, ValueError) as error:
            os.kill(pid, signal.SIGKILL)
            raise GuardError(f"its guard did not say that it runs: {error}") from error
        if "error" in said:
            raise GuardError(said["error"])
        ours.setblocking(False)
        undo.pop_all()
    return Guard(pid, said["pid"], ours)


# ---- in the guard


def _be(execution: Execution, control: socket.socket, until: float) -> None:
    """Be the guard; does not return."""
    try:
        _Watch(execution, control, until).run()
    except BaseException:  # noqa: BLE001 - the root of a process: the program may not outlive it
        traceback.print_exc(file=sys.stderr)
    finally:
        strays.end(strays.descendants(os.getpid()))
        os._exit(0)


class _Watch:
    def __init__(self, execution: Execution, control: socket.socket, until: float) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        keep = {0, 1, 2, control.fileno(), *(ours for ours, _ in execution.descriptors)}
        keep.add(execution.status)
        close_all_but(keep)
        call_this_process(f"shoal-guard {execution.attempt}")
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        strays.adopt_orphans()
        self._execution = execution
        self._control = control
        self._until = until
        self._program = 0
        # Its groups are left to the keeper, while that is there: it reads first what the kernel has counted in them.
        self._remains = Remains(execution.plan.uid)
        self._others: list[int] = []

    def run(self) -> None:
        try:
            self._program = spawn(self._execution, guarded=True)
        except SpawnError as error:
            self._say({"error": str(error)})
            return
        for ours, _ in self._execution.descriptors:
            os.close(ours)
        self._say({"pid": self._program})
        self._control.setblocking(False)
        lease_ended = self._wait()
        left = self._end_rest()
        found = os.waitid(os.P_PID, self._program, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        exited = found is not None and found.si_code == os.CLD_EXITED
        status = found.si_status if found is not None else signal.SIGKILL
        outcome = Outcome(
            status if exited else None, None if exited else int(status), lease_ended, left
        )
        self._say(asdict(outcome))

    def _wait(self) -> bool:
        """Wait until the program has ended; returns whether that was because its lease did."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        lease_ended = False
        while not self._over():
            now = boottime()
            if now >= self._until:
                lease_ended = True
                self._remains = Remains.of(self._execution.plan)
                self._kill()
            patience = LOOK_SECONDS if lease_ended else min(LOOK_SECONDS, self._until - now)
            for descriptor, _ in poller.poll(max(1.0, patience * 1000)):
                if descriptor == self._wake:
                    os.read(self._wake, _PACKET_BYTES)
                elif not self._hear():
                    poller.unregister(self._control)
                    self._remains = Remains.of(self._execution.plan)
                    self._until = min(self._until, boottime() + GRACE_SECONDS)
                    with contextlib.suppress(OSError):
                        self._signal(signal.SIGTERM)
        return lease_ended

    def _hear(self) -> bool:
        """Take renewals; returns whether the keeper is there."""
        with contextlib.suppress(BlockingIOError):
            while packet := self._control.recv(_PACKET_BYTES):
                [self._until] = _MOMENT.unpack(packet)
            return False
        return True

    def _over(self) -> bool:
        """Reap orphans; returns whether the program's leader has ended."""
        for pid in strays.children(os.getpid()):
            if pid != self._program:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        found = os.waitid(os.P_PID, self._program, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def _kill(self) -> Mapping[int, str]:
        """Kill everything; returns what refused, with the reason."""
        with contextlib.suppress(OSError):
            self._signal(signal.SIGKILL)
        self._others = self._remains.end()
        return strays.end(pid for pid in strays.descendants(os.getpid()) if strays.alive(pid))

    def _end_rest(self) -> str:
        """Kill what the leader left behind until nothing is left; says what could not be."""
        give_up_at = boottime() + _LEFT_SECONDS
        while True:
            refused = self._kill()
            self._over()
            rest = [pid for pid in strays.descendants(os.getpid()) if strays.alive(pid)]
            rest += [pid for pid in self._others if pid not in rest]
            if not rest:
                return ""
            if boottime() >= give_up_at or set(rest) <= set(refused):
                return strays.left(rest, refused)
            select.select([self._wake], [], [], 0.01)

    def _signal(self, number: signal.Signals) -> None:
        if self._execution.plan.wrap:
            signal_wrapped(self._program, number)
        else:
            os.killpg(self._program, number)

    def _say(self, message: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # a keeper that is gone does not listen
            self._control.send(json.dumps(message).encode())
