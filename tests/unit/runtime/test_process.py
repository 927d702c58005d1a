"""How a process begins and ends, seen from outside."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

HEAD = """
import asyncio, sys
from services.runtime.process import ExitCode, StartRefusedError, run

async def wait():
    try:
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        print("cleaned", flush=True)

async def hang():
    try:
        await wait()
    finally:
        print("hanging", flush=True)
        await asyncio.Event().wait()

async def fail():
    raise OSError("no room")

async def refuse():
    async with asyncio.TaskGroup() as group:
        group.create_task(refused())

async def refused():
    raise StartRefusedError("--state: give a folder")

async def three():
    return 3

async def loop_name():
    print(type(asyncio.get_running_loop()).__module__)
"""


@contextmanager
def process(call: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    # These tests may themselves run below nohup, which a process of theirs would inherit.
    hears = (
        "" if "nohup" in before else "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    )
    program = f"{hears}\n{HEAD}\nsys.exit(run({call}))"
    with subprocess.Popen(
        [*before, sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
@pytest.mark.parametrize("call", ["wait", "wait, uvloop=True"])
def test_a_signal_cancels_and_the_process_cleans_up(
    number: signal.Signals, code: int, call: str
) -> None:
    with process(call) as running:
        assert line(running) == "ready"
        running.send_signal(number)
        assert line(running) == "cleaned"
        assert running.wait(10) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_clean_up_that_hangs(number: signal.Signals) -> None:
    with process("hang") as running:
        assert line(running) == "ready"
        running.send_signal(number)
        assert line(running) == "cleaned"
        assert line(running) == "hanging"
        running.send_signal(number)
        assert running.wait(10) == -number


def test_u4_a_closed_terminal_does_not_break_off_a_clean_up() -> None:
    """It sends SIGHUP to the leader of its session and again to the group in the foreground."""
    with process("hang") as running:
        assert line(running) == "ready"
        running.send_signal(signal.SIGHUP)
        assert line(running) == "cleaned"
        assert line(running) == "hanging"
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGTERM)  # which still cancels, and lets it end
        assert running.wait(10) == 0


def test_u4_what_began_below_nohup_goes_on_without_its_terminal() -> None:
    with process("wait", "nohup") as running:
        assert line(running) == "ready"
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGINT)
        assert line(running) == "cleaned"
        assert running.wait(10) == 130


@pytest.mark.parametrize(
    ("call", "code", "says", "traceback"),
    [
        ("fail", 1, "OSError: no room", True),
        ("refuse", 2, "--state: give a folder", False),
        ("three", 3, "", False),
    ],
)
def test_the_exit_code_says_how_it_went(
    call: str,
    code: int,
    says: str,
    traceback: bool,  # noqa: FBT001 - a column of the table
) -> None:
    with process(call) as running:
        _, stderr = running.communicate(timeout=10)
        assert running.returncode == code
        assert says in stderr
        assert ("Traceback" in stderr) is traceback


@pytest.mark.parametrize(
    ("call", "module"), [("loop_name", "asyncio"), ("loop_name, uvloop=True", "uvloop")]
)
def test_uvloop_is_used_when_asked_for(call: str, module: str) -> None:
    with process(call) as running:
        assert line(running).startswith(module)
