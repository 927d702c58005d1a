"""`python -m edge_agent.sandbox.door`: one program under a plan, and the end of everything that it starts.

The agent has threads, so it forks no process that does something before its program: it starts this one, which has
one thread, as its own user. It reads one line from standard input, `{"plan", "argv", "env", "cwd"}`, and forks. The
child carries the plan out and becomes the program (`edge_agent.sandbox.entry`). What stays is:

1. **Everything ends with the program**, whatever changed its group, session and parents: this process adopts orphans
   (prctl(2), PR_SET_CHILD_SUBREAPER), and kills until it has no descendant. It keeps the agent's user, so nothing
   behind the door can kill it.
2. **Everything ends with the agent**: when standard input ends, since the agent closed it or is gone, all are killed.
3. **Its status is the program's**: 128+n where a signal n ended it, and 125 where the plan could not be carried out;
   standard error has the words then.

Example: `setup.py` starts `setsid sleep 1000` and ends. The sleep is killed before the agent hears of the end.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from edge_agent.keeper import strays
from edge_agent.sandbox.entry import EntryError, execute
from edge_agent.sandbox.group_folder import kill_group
from edge_agent.sandbox.plan import SandboxPlan
from edge_agent.sandbox.plan_json import plan_from_json

REFUSED: Final = 125
"""Status where the plan could not be carried out."""
_SIGNALLED: Final = 128
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_ORDER_BYTES_MAX: Final = 4 << 20
_END_SECONDS: Final = 10.0
_LOOK_MILLISECONDS: Final = 1000
_END_LOOK_MILLISECONDS: Final = 50


def main() -> int:
    """Be the door of one program; return its status."""
    try:
        plan, argv, env, folder = _read_order()
    except (OSError, ValueError, TypeError, KeyError) as error:
        return _refuse(f"the order cannot be read: {error!r}")
    adopts = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    # Emulators of a processor do not know that. Orphans are ended by their user, groups or namespace then, too.
    if not adopts and plan.uid < 0 and not plan.wrap and not plan.kill:
        return _refuse("it cannot adopt orphans")
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    door = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be(plan, argv, env, folder, door)
    status = _wait(pid, woken)
    _end_all(plan.kill, woken)
    return status


def _read_order() -> tuple[SandboxPlan, list[str], Mapping[str, str], str]:
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, _ORDER_BYTES_MAX)
        if not chunk or len(line) > _ORDER_BYTES_MAX:
            raise ValueError("it has no end")
        line += chunk
    order = cast("dict[str, Any]", json.loads(line))
    argv, env = [str(word) for word in order["argv"]], dict(order["env"])
    if not argv or not argv[0].startswith("/"):
        raise ValueError(f"{argv} does not begin with an absolute path")
    return plan_from_json(order["plan"]), argv, env, str(order["cwd"])


def _be(
    plan: SandboxPlan, argv: Sequence[str], env: Mapping[str, str], folder: str, door: int
) -> None:
    """Become the program; does not return."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        execute(plan, argv, env, parent=door, prepare=lambda: os.chdir(folder))
    except (EntryError, OSError, ValueError) as error:
        os.write(2, f"cannot start {argv[0]}: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(REFUSED)


def _wait(pid: int, woken: int) -> int:
    """Wait until the program has ended, or the agent does not want it any more; reap orphans meanwhile."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for number, _ in poll.poll(_LOOK_MILLISECONDS):
            if number == woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
            elif not os.read(0, 4096):
                return _SIGNALLED + signal.SIGKILL
        while (ended := _reap()) is not None:
            if ended[0] == pid:
                return _code(ended[1])


def _reap() -> tuple[int, int] | None:
    """One process that has ended and its wait status."""
    try:
        ended = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return ended if ended[0] else None


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNALLED - code


def _end_all(folders: Sequence[str], woken: int) -> None:
    """Kill until there is no descendant; what forks meanwhile loses the race once it reaches its limits."""
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    until = time.monotonic() + _END_SECONDS
    while time.monotonic() < until:
        kill_group(folders)
        strays.end(strays.descendants(os.getpid()))
        while _reap() is not None:
            pass
        if not strays.children(os.getpid()):
            return
        poll.poll(_END_LOOK_MILLISECONDS)
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)


def _refuse(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
