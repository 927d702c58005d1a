"""Clocks that are wrong: a board without a battery begins in 1970, and another is three years ahead."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.kit.controller_process import ControllerProcess
from tests.kit.programs import program

SHOAL = (sys.executable, "-m", "shoal.cli")


async def shoal(home: Path, *words: str, clock: str = "") -> tuple[int, str]:
    """Run the command with a clock; returns its exit status and what it said."""
    early = (program("faketime"), clock) if clock else ()
    environ = {
        **os.environ,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state-home"),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [*early, *SHOAL, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        env=environ,
        check=False,
    )
    return done.returncode, done.stdout


async def test_a_clock_in_1970_joins_and_one_years_ahead_is_told_of_its_clock(
    tmp_path: Path,
) -> None:
    async with ControllerProcess(
        tmp_path, "--no-insecure", "--newcomers", "127.0.0.1:0"
    ) as controller:
        at = ("--controller", controller.grpc)
        operator = ("--identity", str(tmp_path / "state" / "identity" / "operator"))
        made = ("token", "create", "--role", "viewer", "--uses", "2", *at, *operator)
        status, said = await shoal(tmp_path, *made)
        assert status == 0, said
        token = tmp_path / "viewer.token"
        token.write_text(next(line for line in said.splitlines() if line.startswith("shoal1.")))
        token.chmod(0o600)
        newcomers = controller.addresses["newcomers"]
        login = ("login", *at, "--newcomers", newcomers, "--token-file", str(token))

        ahead = tmp_path / "ahead"
        status, said = await shoal(ahead, *login, clock="+1100 days")
        assert status != 0
        assert "the clock of this machine says 20" in said
        assert "set the clock" in said

        early = tmp_path / "early"
        status, said = await shoal(early, *login, clock="1970-01-02 00:00:00")
        assert status == 0, said
        status, said = await shoal(early, "nodes", *at, clock="1970-01-02 00:00:00")
        assert status == 0, said

        # Whatever the clock said as it joined, what it got is good now.
        status, said = await shoal(early, "nodes", *at)
        assert status == 0, said
        # A clock that went wrong later is told, too, and says what may be wrong.
        status, said = await shoal(early, "nodes", *at, clock="+1100 days")
        assert status != 0
        assert "clock" in said, said
