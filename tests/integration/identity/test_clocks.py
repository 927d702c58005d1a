"""Machines whose clock is wrong: one in 1970 joins and works, and one that is years ahead is told so."""

import os
from collections.abc import Mapping
from pathlib import Path

from shoal.client import Client
from shoal.model import PipelineState
from tests.integration.identity.test_agents import board
from tests.integration.identity.test_newcomers import running
from tests.integration.identity.test_people import Place, place
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import contents, describe, submit, when
from tests.kit.controller_process import ControllerProcess
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


SPEC = """
    name: there-and-back
    bundle: .
    jobs:
      source:
        run: sh -c 'for n in $(seq 1 500); do echo line $n; done'
        place: {require: {board: cam-1}}
        outputs: {said: {format: lines, as: stdout}}
      upper:
        run: tr a-z A-Z
        place: {require: {board: cam-2}}
        inputs: {said: {from: source.said, format: lines, as: stdin}}
        outputs: {loud: {format: lines, as: stdout}}
      sink:
        run: sh -c 'cat > results/all'
        place: {require: {board: cam-1}}
        inputs: {loud: {from: upper.loud, format: lines, as: stdin}}
"""


async def test_a_board_that_stands_in_1970_streams_to_another_and_back(tmp_path: Path) -> None:
    """Each end of a stream checks the other's certificate by its own clock."""
    async with (
        running(tmp_path / "controller") as cluster,
        board(cluster, "--label", "board=cam-1", environ=clock_at("@1970-01-01 12:00:00")) as old,
        board(cluster, "--label", "board=cam-2", name="cam-2") as new,
        Client(cluster.addresses.grpc, credentials=cluster.operator) as client,
    ):
        for cam in (old, new):
            cam.take(await cluster.token())
            cam.begin()
        name = (await submit(client, tmp_path / "job", SPEC, {})).pipeline.id
        ended = await when(client, name, lambda now: now.state.terminal)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        expected = "".join(f"LINE {number}\n" for number in range(1, 501)).encode()
        assert await contents(client, ended, "results/all", tmp_path / "all") == expected
        assert "1970-01-01T" in old.said()


async def test_a_person_whose_clock_stands_in_1970_logs_in_and_one_years_ahead_is_told(
    tmp_path: Path,
) -> None:
    old, ahead = (faked(clock_at(moment)) for moment in ("@1970-01-01 12:00:00", "+3y"))
    async with place(tmp_path) as here:
        word = (await here.operator("token", "create", "--role", "submitter")).out.strip()
        newcomers = (
            "login",
            "--newcomers",
            here.newcomers,
            "--token-file",
            "-",
            "--name",
            "ann",
        )
        told = await here.shoal(*newcomers, stdin=word, **ahead)
        assert told.status == 1
        assert "the clock of this machine says" in told.err
        assert "set the clock" in told.err
        assert word.rpartition(".")[2] not in told.err
        joined = await here.shoal(*newcomers, stdin=word, **old)
        assert "you are submitter/ann" in joined.out, joined.err
        assert "you are submitter/ann" in (await here.shoal("status", **old)).err
        told = await here.shoal("status", **ahead)
        assert told.status == 1
        assert "clock" in told.err
        assert "you are submitter/ann" in (await here.shoal("status")).err


def faked(environ: Mapping[str, str]) -> dict[str, str]:
    """Of the variables of a process those that set its clock."""
    return {key: value for key, value in environ.items() if "FAKE" in key or key == "LD_PRELOAD"}


async def test_a_whole_cluster_of_1970_works_and_goes_on_when_its_clock_is_set(
    tmp_path: Path,
) -> None:
    """Boards on a switch without a router; then a cable brings them the time of the network."""
    hand = tmp_path / "clock"
    hand.write_text("@1970-01-01 12:00:00")
    environ = {**clock_at(""), "FAKETIME_TIMESTAMP_FILE": str(hand), "FAKETIME_NO_CACHE": "1"}
    del environ["FAKETIME"]
    words = ("--no-insecure", "--newcomers", "127.0.0.1:0")
    async with ControllerProcess(tmp_path, *words, environ=environ) as controller:
        at, newcomers = controller.grpc, controller.addresses["newcomers"]
        here = Place(at, newcomers, tmp_path / "state", tmp_path / "home")
        clock = faked(environ)
        made = await here.operator("token", "create", "--role", "node", **clock)
        cam = AgentProcess(
            at, "--no-insecure", "--newcomers", newcomers, name="cam-1", environ=environ
        )
        (cam.state / "token").write_text(made.out)
        (cam.state / "token").chmod(0o600)
        cam.start("--token-file", str(cam.state / "token"))
        try:
            await until(lambda: cam.log().count("session opened") == 1, 30, "the session")
            ran = await here.operator("run", "--", "echo", "hello", **clock)
            assert ran.status == 0, ran.err
            assert "1970-01-01T" in controller.log()
            hand.write_text("+0")
            ran = await here.operator("run", "--", "echo", "hello", **clock)
            assert ran.status == 0, ran.err
            cam.kill()
            cam.start("--token-file", str(cam.state / "token"))
            await until(lambda: cam.log().count("session opened") == 2, 30, "the session again")
        finally:
            await cam.__aexit__()
