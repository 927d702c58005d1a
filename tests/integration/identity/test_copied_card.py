"""A board that was imaged twice from one card: two agents with one name, one certificate and one journal."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from edge_agent.keeper.client import end_keeper
from shoal.client import Client
from shoal.model import JobState, PipelineState
from tests.integration.identity.test_agents import Board, board, connected
from tests.integration.identity.test_newcomers import running
from tests.kit.agent_process import ended
from tests.kit.cluster import describe, submit, when
from tests.kit.until import until

SPEC = """
    name: two
    jobs:
      once:
        placement: at_most_one_running
        run: {beat}
      plain:
        run: {beat}
"""
# Each run is a process that adds its number to a file as long as it runs.
BEAT = "['sh', '-c', 'until [ -e {gate} ]; do echo $$ >> {ledger}.$SHOAL_JOB; sleep 0.1; done']"


COPIED = "its state folder is a copy of the other's"


async def pull_the_plug(one: Board) -> None:
    """End everything of a board, as a loss of power does, and let the next start be that of another boot."""
    pids = one.processes()
    one.kill()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await until(lambda pid=pid: ended(pid), 10, "the end of a process")  # type: ignore[misc]
    with closing(sqlite3.connect(one.state / "agent.db")) as journal, journal:
        journal.execute("UPDATE fact SET value = 'another' WHERE name = 'boot_id'")


def copy_card(one: Board, other: Board) -> None:
    """Give the other board what the card of the first has."""
    names = ("keeper.sock", "*.sock", "agent.log", "streams.sock")
    shutil.copytree(
        one.state, other.state, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*names)
    )


def sessions(one: Board) -> int:
    return one.said().count("session opened")


async def test_a_board_imaged_twice_is_told_and_may_not_run_a_job_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    beat = BEAT.format(gate=gate, ledger=ledger)
    # A lease so long that a slow start of the boards gives no job that may not run twice to another attempt, and
    # heartbeats so far apart that on a busy machine none is missed, on which the other agent would get the name.
    lease = {"lease_seconds": 600.0, "heartbeat_seconds": 10.0}
    async with running(tmp_path / "controller", **lease) as cluster:
        words = ("--gossip", "127.0.0.1:0", "--join", cluster.addresses.gossip)
        async with (
            board(cluster, *words) as first,
            board(cluster, *words) as second,
            Client(cluster.addresses.grpc, credentials=cluster.operator) as client,
        ):
            first.take(await cluster.token())
            first.begin()
            name = (await submit(client, tmp_path / "job", SPEC.format(beat=beat), {})).pipeline.id
            await when(
                client, name, lambda now: all(job.state is JobState.RUNNING for job in now.jobs)
            )
            await pull_the_plug(first)
            copy_card(first, second)
            # The board is off for as long as gossip takes to find it dead: then the job that may run again is given to
            # another attempt, and the other one is not. A busy machine would take that long anyhow.
            view = await when(
                client, name, lambda now: now.jobs[1].attempts[0].state is JobState.LOST
            )
            assert "gossip found node cam-1 dead" in view.jobs[1].attempts[0].reason.message, (
                describe(view)
            )
            first.begin()
            second.begin()
            both = (first, second)
            await until(lambda: any(COPIED in one.said() for one in both), 60, "the word")
            loser = second if COPIED in second.said().partition("quarantined: ")[2] else first
            winner = first if loser is second else second
            await until(
                lambda: COPIED in winner.said(), 30, "the word to the one that has the name"
            )
            for one in both:
                assert "two agents call themselves cam-1" in one.said()
                assert "shoal token create" in one.said()
            assert sessions(winner) == 1 + (winner is first)
            assert sessions(loser) == (loser is first)
            [node] = await client.nodes()
            assert COPIED in node.conflict
            # Gossip tells it on its own, too: on the member that hears of both.
            doubled = "two members call themselves cam-1"
            await until(
                lambda: any(doubled in text for text in (first.said(), second.said(), caplog.text))
            )
            # The job that may not run twice was run by the board before, and by one of the two since.
            assert len(set((tmp_path / "ledger.once").read_text().split())) == 2
            # What is said to do: a name, a state and a token of its own.
            loser.kill()
            await end_keeper(loser.state / "keeper.sock", 20)
            async with board(cluster, name="cam-2") as renamed:
                renamed.take(await cluster.token())
                renamed.begin()
                await until(lambda: connected(cluster, "cam-2"), 30, "the board of another name")
            gate.touch()
            view = await when(client, name, lambda now: now.state.terminal)
            assert view.state is PipelineState.SUCCEEDED, describe(view)
            assert [len(job.attempts) for job in view.jobs] == [1, 2], describe(view)
            assert sessions(winner) == 1 + (winner is first), "nothing has flapped"


async def test_a_copy_that_is_only_renamed_is_told_what_it_is(tmp_path: Path) -> None:
    """The other board has a host name of its own, and the certificate of the first."""
    async with (
        running(tmp_path / "controller") as cluster,
        board(cluster) as first,
        board(cluster, name="cam-2") as second,
    ):
        first.take(await cluster.token())
        first.begin()
        await until(lambda: sessions(first) == 1, 30, "the session")
        await first.terminate()
        copy_card(first, second)
        (second.state / "token").unlink()
        code, said = await second.ask("--token-file", str(second.token_file))
        assert code == 2
        assert "cam-1" in said
        assert "cam-2" in said
