"""Programs that build something are run to their end, on the loop that agents have and on asyncio's own."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import uvloop

from edge_agent.environments.command import CommandFailedError, run_command
from tests.kit.until import until

Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]

ENVIRON = {"PATH": "/usr/bin:/bin"}
SECONDS = 50.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def on_the_loop(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return on_the_loop


def _runs(word: str) -> bool:
    """Whether a program runs that has this word."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word.encode() in words:
                return True
    return False


def test_what_it_prints_is_returned(run: Run) -> None:
    async def main() -> None:
        said = await run_command(["/bin/sh", "-c", "echo out; echo err >&2"], ENVIRON, SECONDS)
        assert said == "out\n"

    run(main())


def test_its_last_words_say_why_it_failed(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(CommandFailedError, match="sh ended with status 3: no such thing"):
            await run_command(["/bin/sh", "-c", "echo no such thing >&2; exit 3"], ENVIRON, SECONDS)

    run(main())


def test_a_program_that_is_not_there_is_named(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(CommandFailedError, match="/nowhere/x cannot be started: No such file"):
            await run_command(["/nowhere/x"], ENVIRON, SECONDS)

    run(main())


def test_one_that_is_given_up_ends_with_what_it_started(run: Run) -> None:
    word = f"{os.getpid()}.0521"

    async def main() -> None:
        script = f"sleep {word} & sleep {word}"
        building = asyncio.create_task(run_command(["/bin/sh", "-c", script], ENVIRON, SECONDS))
        await until(lambda: _runs(word), SECONDS, "the program")
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        await until(lambda: not _runs(word), SECONDS, "the end of both")

    run(main())


def test_an_order_stays_open_until_it_has_ended(run: Run) -> None:
    """A door takes the end of its input for the end of its agent."""

    async def main() -> None:
        script = "read line; echo $line; timeout 0.2 cat; echo $?"
        said = await run_command(["/bin/sh", "-c", script], ENVIRON, SECONDS, order=b"do it\n")
        assert said == "do it\n124\n"

    run(main())


def test_one_that_reads_none_of_its_order_is_ended_in_time(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(CommandFailedError, match=r"cat took longer than 0\.1 s"):
            await run_command(["/bin/cat"], ENVIRON, 0.1, order=b"x" * 1_000_000)
        status = await run_command(["/bin/true"], ENVIRON, SECONDS, order=b"x" * 1_000_000)
        assert not status

    run(main())
