"""Boards whose clock is wrong: one in 1970 joins, and one that is years ahead is told so."""

import os
from collections.abc import Mapping
from pathlib import Path

from tests.integration.identity.test_agents import board
from tests.integration.identity.test_newcomers import running
from tests.kit.programs import unavailable
from tests.kit.until import until

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def clock_at(moment: str) -> Mapping[str, str]:
    """Variables of a process whose clock of the world stands there at its start."""
    if LIBRARY is None:
        unavailable("libfaketime is not installed; `make system` installs it or says how")
    return {
        **os.environ,
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME": moment,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


async def test_a_board_that_stands_in_1970_joins_and_stays(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as cluster,
        board(cluster, environ=clock_at("@1970-01-01 12:00:00")) as cam,
    ):
        cam.take(await cluster.token())
        cam.begin()
        # The controller knows of the session a moment before the agent does.
        await until(lambda: cam.said().count("session opened") == 1)
        assert "1970-01-01T" in cam.said()
        cam.kill()
        cam.begin()
        await until(lambda: cam.said().count("session opened") == 2)


async def test_a_board_that_is_years_ahead_is_told_to_set_its_clock(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as cluster,
        board(cluster, environ=clock_at("+3y")) as cam,
    ):
        word = await cluster.token()
        cam.take(word)
        code, said = await cam.ask("--token-file", str(cam.token_file))
        assert code == 2
        assert "the clock of this machine says" in said
        assert "set the clock" in said
        assert word.rpartition(".")[2] not in said
    # The token was not sent, so it is still good.
    async with running(tmp_path) as cluster, board(cluster) as cam:
        assert (await cluster.join(word)).credentials.identity.name == cam.name
