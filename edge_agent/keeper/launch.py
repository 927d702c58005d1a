"""Starting one program: descriptors, FIFOs, session, limits."""

import fcntl
import os
import resource
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge_agent.keeper import direct_start
from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.execution import Execution, SpawnError, open_plain, said, spawn
from edge_agent.keeper.guard import Guard, GuardError, start_guard
from edge_agent.keeper.relay import Relay, RelayError, start_relay
from edge_agent.keeper.starters import Starters
from edge_agent.sandbox.plan import NO_PLAN, STATUS_WORD, SandboxPlan

_FIRST_HIGH_DESCRIPTOR = 512  # above every number that a job's port may be given
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a job: its name, its direction as the job sees it, and where the job finds it.

    That is a descriptor of the program, or, where `path` is not empty, a FIFO of that absolute path,
    whose records have `record_bytes` each; 0 where they have no size of their own.
    """

    name: str
    direction: str
    fd: int = -1
    path: str = ""
    record_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """What is asked to be started. Paths are absolute; `stdin` of "" means none.

    `memory_bytes` and `open_files` are hard limits of each process, as far as the keeper's own allow; 0 means no limit
    of ours. `sandbox` is to be done before the program is executed.
    """

    attempt: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    stdin: str
    stdout: str
    stderr: str
    ports: tuple[Port, ...] = ()
    memory_bytes: int = 0
    open_files: int = 0
    sandbox: SandboxPlan = NO_PLAN


@dataclass(frozen=True, slots=True)
class Launched:
    """A running program: its process id, the agent's ends of its ports, its FIFOs' relays.

    `guard` is there if it was started with a lease. `status` is what bubblewrap writes its own to, -1 for none.
    """

    pid: int
    ports: Mapping[Port, int]
    relays: Sequence[Relay]
    guard: Guard | None
    status: int = -1


class LaunchError(Exception):
    """The program could not be started."""


def launch(
    program: Launch,
    mark: int,
    until: float,
    *,
    env: Mapping[str, str],
    plan: SandboxPlan,
    starters: Starters,
) -> Launched:
    """Start `program` as the leader of a session and process group of its own.

    Args:
        program: what is to be started.
        mark: what its processes are known by.
        until: if not 0, a moment on the clock of leases at which it is killed unless that is renewed.
        env: all its variables.
        plan: what is done before it begins.
        starters: those of the keeper, which are the parents of what they start.

    Raises:
        LaunchError: The folder, the program or a file cannot be opened, a FIFO cannot be made, no
            process can be had, or the lease has run out. Nothing is left of it then.
    """
    if until and boottime() >= until:
        raise LaunchError("its lease ran out before it was started")
    # What only the program needs, and what is kept once it runs: without the keeper's end of its control a relay ends.
    passed: list[int] = []
    kept: list[int] = []
    try:
        limited = _with_limits(plan, program)
        launched = _launch(program, mark, until, env, limited, starters, passed, kept)
    except (GuardError, SpawnError) as error:
        _close(kept)
        raise LaunchError(str(error)) from error
    except (OSError, ValueError) as error:
        _close(kept)
        raise LaunchError(f"cannot start {program.argv[0]!r}: {said(error)}") from error
    except BaseException:
        _close(kept)
        raise
    finally:
        _close(passed)
    return launched


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _launch(
    program: Launch,
    mark: int,
    until: float,
    env: Mapping[str, str],
    plan: SandboxPlan,
    starters: Starters,
    passed: list[int],
    kept: list[int],
) -> Launched:
    """Start it; `passed` is what only the program needs, and `kept` what is closed if this fails."""
    passed.append(open_plain(program.stdout, _APPEND))
    passed.append(open_plain(program.stderr, _APPEND))
    descriptors = [(passed[0], 1), (passed[1], 2)]
    ours: dict[Port, int] = {}
    relays: list[Relay] = []
    # After the files, so that a port may be standard input or output.
    for port in program.ports:
        mine, job_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours[port] = mine.detach()
        kept.append(ours[port])
        with job_end:
            if port.path:
                relays.append(_relay(port, job_end, env, plan))
                kept.append(relays[-1].control)
                continue
            high = fcntl.fcntl(job_end.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH_DESCRIPTOR)
        passed.append(high)
        descriptors.append((high, port.fd))
    status = -1
    if STATUS_WORD in plan.wrap:
        status = os.memfd_create("shoal-status")
        kept.append(status)
    execution = Execution(
        program.attempt,
        _with_places(program.argv, program.ports) if program.ports else program.argv,
        env,
        program.cwd,
        program.stdin,
        descriptors,
        mark,
        plan,
        status,
    )
    guard = start_guard(execution, until) if until else None
    pid = _start(execution, starters) if guard is None else guard.program
    return Launched(pid, ours, relays, guard, status)


def _start(execution: Execution, starters: Starters) -> int:
    """Start what has no guard in the cheapest way that its plan leaves."""
    if direct_start.suits(execution.plan):
        return direct_start.start(execution)
    pid = starters.start(execution)
    return spawn(execution) if pid is None else pid


def _relay(port: Port, job_end: socket.socket, env: Mapping[str, str], plan: SandboxPlan) -> Relay:
    try:
        return start_relay(
            *(port.name, port.direction, port.path, job_end.fileno(), env),
            record_bytes=port.record_bytes,
            owner=(plan.uid, plan.gid),
        )
    except RelayError as error:
        raise LaunchError(f"the FIFO of the port {port.name!r} cannot be had: {error}") from error


def _with_places(argv: Sequence[str], ports: Sequence[Port]) -> list[str]:
    done = list(argv)
    for port in ports:
        name = ("inputs" if port.direction == "in" else "outputs") + f".{port.name}"
        mark, place = ("path", port.path) if port.path else ("fd", str(port.fd))
        done = [word.replace(f"{{{name}.{mark}}}", place) for word in done]
    return done


def _with_limits(plan: SandboxPlan, program: Launch) -> SandboxPlan:
    """The plan, with the limits that a request has beside a plan."""
    if not program.open_files and not program.memory_bytes:
        return plan
    limits = list(plan.limits)
    for which, amount in (
        (resource.RLIMIT_NOFILE, program.open_files),
        (resource.RLIMIT_DATA, program.memory_bytes),
    ):
        _, hard = resource.getrlimit(which)
        if amount:
            limits.append((which, amount if hard == resource.RLIM_INFINITY else min(amount, hard)))
    return replace(plan, limits=tuple(limits))
