"""The door of a build's program: its status, and the end of everything behind it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

from edge_agent.environments.command import CommandFailedError, run_command
from edge_agent.sandbox.door import REFUSED
from edge_agent.sandbox.plan import SandboxPlan
from edge_agent.sandbox.plan_json import plan_to_json
from tests.kit.until import until_sync

DOOR = (sys.executable, "-I", "-m", "edge_agent.sandbox.door")
DAEMON = "import os, sys; os.setsid(); os.fork() and os._exit(0); os.execve('/bin/sleep', ['sleep', sys.argv[1]], {})"


def _order(*argv: str, plan: SandboxPlan | None = None) -> bytes:
    order: Mapping[str, object] = {
        "plan": plan_to_json(plan or SandboxPlan()),
        "argv": argv,
        "env": {"PATH": os.defpath},
        "cwd": "/",
    }
    return json.dumps(order).encode() + b"\n"


def _open(*argv: str, plan: SandboxPlan | None = None) -> "subprocess.Popen[bytes]":
    door = subprocess.Popen(
        DOOR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}
    )
    assert door.stdin is not None
    door.stdin.write(_order(*argv, plan=plan))
    door.stdin.flush()
    return door


def _running(word: str) -> list[str]:
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in said.splitlines() if line.split()[-1:] == [word]]


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_its_status_is_that_of_the_program(script: str, status: int) -> None:
    with _open("/bin/sh", "-c", script) as door:
        assert door.wait(50) == status


def test_a_plan_that_cannot_be_carried_out_starts_nothing() -> None:
    with _open("/bin/echo", "begun", plan=SandboxPlan(join=("/nowhere/cgroup.procs",))) as door:
        assert door.wait(50) == REFUSED
        assert door.stdout is not None
        assert door.stderr is not None
        said, words = door.stdout.read(), door.stderr.read()
    assert said == b""
    assert b"cannot start /bin/echo: cannot join the control group /nowhere" in words


@pytest.mark.parametrize(
    "order", [b"{}\n", b"[]\n", b"x\n", b"", b'{"plan": {}, "argv": [], "env": {}, "cwd": "/"}\n']
)
def test_an_order_that_is_none_starts_nothing(order: bytes) -> None:
    done = subprocess.run(DOOR, input=order, capture_output=True, env={}, timeout=50, check=False)
    assert done.returncode == REFUSED
    assert done.stderr.startswith(b"the order cannot be read: ")
    assert b"Traceback" not in done.stderr


def test_a_daemon_ends_with_the_program() -> None:
    word = f"{os.getpid()}.0971"
    script = f'{sys.executable} -I -c "{DAEMON}" {word}; exit 3'
    with _open("/bin/sh", "-c", script) as door:
        assert door.wait(50) == 3
    assert _running(word) == []


def test_everything_ends_with_the_agent() -> None:
    word = f"{os.getpid()}.0972"
    script = f'{sys.executable} -I -c "{DAEMON}" {word}; sleep {word}'
    with _open("/bin/sh", "-c", script) as door:
        until_sync(lambda: len(_running(word)) == 2, 50, "the program and its daemon")
        assert door.stdin is not None
        door.stdin.close()
        assert door.wait(50) == 137
    assert _running(word) == []


async def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started() -> None:
    word = f"{os.getpid()}.0973"
    begun = time.monotonic()
    with pytest.raises(CommandFailedError, match=r"sh took longer than 0\.5 s"):
        await run_command(
            DOOR, {}, 0.5, order=_order("/bin/sh", "-c", f"sleep {word} & sleep {word}"), name="sh"
        )
    assert time.monotonic() - begun < 50
    assert _running(word) == []
