"""Looking at a stream while it passes (F13): `Client.tap` and `shoal tap`, on a real cluster."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState
from shoal.view import TapNews
from tests.kit.cluster import describe, job_of, running_cluster, submit, when
from tests.kit.until import until

_DEADLINE = 60.0
SHOAL = str(Path(sys.executable).parent / "shoal")

# Sends what the test appends to a file, and the same again when it is run again.
FOLLOW = """
import os, select, sys
with open(os.environ["LINES"]) as lines:
    rest = ""
    while True:
        rest += lines.readline()
        if not rest.endswith("\\n"):
            select.select([], [], [], 0.01)
            continue
        if rest == "END\\n":
            break
        sys.stdout.write(rest)
        sys.stdout.flush()
        rest = ""
"""
SPEC = """
    name: tapped
    bundle: .
    jobs:
      source:
        run: python follow.py
        variables: {{LINES: "{lines}"}}
        outputs: {{said: {{format: lines, as: stdout}}}}
      sink:
        run: sh -c 'cat > results/all'
        inputs: {{said: {{from: source.said, format: lines, as: stdin}}}}
"""


class _Tap:
    """What a tap showed so far."""

    def __init__(self, client: Client, name: str) -> None:
        self.news: list[TapNews] = []
        self._pieces = client.tap(f"{name}/source", "said")

    async def run(self) -> None:
        """Look until the stream ends."""
        async with contextlib.aclosing(self._pieces) as pieces:
            async for piece in pieces:
                self.news.append(piece)

    def shown(self, epoch: int) -> dict[int, bytes]:
        """The records of one epoch by number."""
        return {
            record.sequence: record.data
            for piece in self.news
            if piece.epoch == epoch
            for record in piece.records
        }


async def test_f13_a_tap_shows_records_follows_the_producer_and_ends_with_the_stream(
    tmp_path: Path,
) -> None:
    """Live records with their numbers, those of the replacement too, and then the end."""
    lines = tmp_path / "lines"
    lines.touch()
    async with running_cluster(tmp_path / "cluster") as (cluster, client):
        spec = SPEC.format(lines=lines)
        submitted = await submit(client, tmp_path / "job", spec, {"follow.py": FOLLOW})
        name = submitted.pipeline.id
        tap = _Tap(client, name)
        looking = asyncio.create_task(tap.run())
        running = await when(
            client, name, lambda now: all(job.state is JobState.RUNNING for job in now.jobs)
        )
        await until(lambda: any(piece.port for piece in tap.news), what="the tap is open")
        source = job_of(running, "source")
        with lines.open("a") as file:
            file.write("one\ntwo\n")
        await until(lambda: tap.shown(source.epoch) == {0: b"one", 1: b"two"}, what="two records")

        command = await asyncio.create_subprocess_exec(
            *(SHOAL, "tap", name, "source.said", "--json", "--count", "1"),
            *("--controller", cluster.controller_address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        # Whatever is said before the command looks is not shown, so something is said until it ends.
        waiting = asyncio.create_task(command.communicate())
        said = 2

        async def ended() -> bool:
            nonlocal said
            with lines.open("a") as file:
                file.write(f"line {said}\n")
            said += 1
            return waiting.done()

        await until(ended, 30, "shoal tap --count 1")
        out, err = await waiting
        assert command.returncode == 0, err
        [shown] = out.splitlines()
        record = json.loads(shown)
        assert record["kind"] == "text"
        assert record["value"] == f"line {record['sequence']}"

        await cluster.kill_board(source.node)
        await until(lambda: any(piece.epoch > source.epoch for piece in tap.news), 30, "epoch 2")
        again = job_of(await client.get(name), "source")
        with lines.open("a") as file:
            file.write("last\n")
        await until(lambda: tap.shown(again.epoch).get(said) == b"last", 30, "the last record")
        with lines.open("a") as file:
            file.write("END\n")
        ended_pipeline = await client.wait(name, deadline_seconds=_DEADLINE)
        assert ended_pipeline.state is PipelineState.SUCCEEDED, describe(ended_pipeline)
        async with asyncio.timeout(_DEADLINE):
            await looking
        last = tap.news[-1]
        assert last.ended or last.sentence
        assert all(piece.dropped == 0 for piece in tap.news)


async def test_f13_a_tap_says_what_there_is_and_that_a_job_waits(tmp_path: Path) -> None:
    """Unknown names list the known ones; a job without a node is waited for."""
    spec = """
        name: waits
        jobs:
          source:
            run: seq 3
            place: {require: {role: moon}}
            outputs: {said: {format: lines, as: stdout}}
          sink:
            run: cat
            inputs: {said: {from: source.said, format: lines, as: stdin}}
    """
    async with running_cluster(tmp_path / "cluster", agents=1) as (_, client):
        submitted = await submit(client, tmp_path / "job", spec, {})
        name = submitted.pipeline.id
        for job, port, known in (
            ("sauce", "said", "its jobs are source, sink"),
            ("source", "sad", "its outputs are said"),
            ("sink", "said", "source.said"),
        ):
            with pytest.raises(ShoalError, match=known):
                await anext(client.tap(f"{name}/{job}", port))
        pieces = client.tap(f"{name}/source", "said")
        async with contextlib.aclosing(pieces):
            news = await anext(pieces)
            assert "source waits for a node" in news.sentence
            await client.cancel(name, "enough")
            async with asyncio.timeout(_DEADLINE):
                rest = [piece async for piece in pieces]
        assert "cancelled" in rest[-1].sentence
