"""Streams of a cluster with identity, end to end: controller, agents and stream workers of two nodes."""

import asyncio
import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from services.identity.ticket import TicketSigner, read_ticket
from shoal.client import Client
from shoal.credentials import write_credentials
from shoal.identity import Role
from shoal.local.record_file import RecordFile
from shoal.model import JobState, PipelineState
from shoal.v1.session_service_pb2 import Assignment
from shoal.view import PipelineView
from tests.integration.identity.nodes import joined_agents
from tests.kit.cluster import contents, describe, job_of, read_twice, submit, when
from tests.kit.joined import issued
from tests.kit.running_controller import running_controller
from tests.kit.until import until

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
    name: apart
    bundle: .
    jobs:
      source:
        run: python follow.py
        variables: {{LINES: "{lines}"}}
        place: {{require: {{board: cam-1}}}}
        outputs: {{said: {{format: lines, as: stdout}}}}
      sink:
        run: sh -c 'cat > results/all'
        place: {{require: {{board: cam-2}}}}
        inputs: {{said: {{from: source.said, format: lines, as: stdin}}}}
"""


@pytest.mark.parametrize("security", ["mutual", "ticket"])
async def test_a_stream_between_nodes_and_a_tap_on_it(tmp_path: Path, security: str) -> None:
    lines = tmp_path / "lines"
    lines.touch()
    state = tmp_path / "controller"
    async with running_controller(state, insecure=False) as addresses:
        operator = issued(state, Role.OPERATOR, "ann")
        words = ("--streams-security", security)
        async with (
            joined_agents(state, addresses.grpc, ["cam-1", "cam-2"], *words),
            Client(addresses.grpc, credentials=operator) as client,
        ):
            spec = SPEC.format(lines=lines)
            submitted = await submit(client, tmp_path / "job", spec, {"follow.py": FOLLOW})
            name = submitted.pipeline.id
            running = await when(
                client, name, lambda now: all(job.state is JobState.RUNNING for job in now.jobs)
            )
            assert {job_of(running, job).node for job in ("source", "sink")} == {"cam-1", "cam-2"}
            seen: list[bytes] = []

            async def look() -> None:
                async with contextlib.aclosing(client.tap(f"{name}/source", "said")) as pieces:
                    async for piece in pieces:
                        seen.extend(record.data for record in piece.records)

            looking = asyncio.create_task(look())
            said = 0

            async def tapped() -> bool:
                nonlocal said
                with lines.open("a") as file:
                    file.write(f"line {said}\n")
                said += 1
                return bool(seen)

            await until(tapped, 60, "the tap shows a record")
            with lines.open("a") as file:
                file.write("END\n")
            await asyncio.wait_for(looking, 60)
            ended = await when(client, name, lambda now: now.state.terminal)
            assert ended.state is PipelineState.SUCCEEDED, describe(ended)
            expected = "".join(f"line {k}\n" for k in range(said)).encode()
            assert await contents(client, ended, "results/all", tmp_path / "all") == expected


SHOAL = str(Path(sys.executable).parent / "shoal")
CHAT = """
name: chat
jobs:
  me: {local: true, run: cat, outputs: {line: {format: lines, as: stdout}}}
  upper:
    run: [tr, a-z, A-Z]
    inputs: {line: {from: me.line, format: lines, as: stdin}}
    outputs: {said: {format: lines, as: stdout}}
  show:
    local: true
    run: [sh, -c, "cat > shown"]
    inputs: {said: {from: upper.said, format: lines, as: stdin}}
"""


async def test_jobs_beside_the_client_and_its_recorder_reach_streams_through_the_controller(
    tmp_path: Path,
) -> None:
    state, home = tmp_path / "controller", tmp_path / "home"
    home.mkdir()
    (home / "chat.yaml").write_text(CHAT)
    async with running_controller(state, insecure=False) as addresses:
        write_credentials(home / "ann", issued(state, Role.OPERATOR, "ann"))
        async with joined_agents(state, addresses.grpc, ["cam-1"]):
            process = await asyncio.create_subprocess_exec(
                *(SHOAL, "run", "chat.yaml", "--record", "upper.said=said.records"),
                *("--controller", addresses.grpc, "--identity", str(home / "ann")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=home,
                env={**os.environ, "XDG_STATE_HOME": str(home)},
            )
            # A stream that is over before its recording begins is not recorded.
            watcher = issued(state, Role.OPERATOR, "watcher")
            async with Client(addresses.grpc, credentials=watcher) as client:

                async def submitted() -> PipelineView | None:
                    return await anext(client.list(), None)

                view = await until(submitted, 30, "the pipeline is submitted")
                assert view is not None
                await read_twice(client, f"{view.name}/jobs/upper", "said")
            async with asyncio.timeout(100):
                told, _ = await process.communicate(b"one\ntwo\n")
            assert process.returncode == 0, told.decode()
    assert (home / "shown").read_bytes() == b"ONE\nTWO\n"
    recorded = RecordFile(home / "said.records", writable=False)
    assert (recorded.base, recorded.total) == (0, 2)
    recorded.close()


async def test_agents_that_start_while_their_controller_is_away_go_on_with_streams_and_tickets(
    tmp_path: Path,
) -> None:
    """What was journalled, and the folder of the identity, are all that an agent needs."""
    lines = tmp_path / "lines"
    lines.touch()
    state = tmp_path / "controller"
    async with contextlib.AsyncExitStack() as stack:
        async with running_controller(state, insecure=False) as addresses:
            operator = issued(state, Role.OPERATOR, "ann")
            key = TicketSigner((state / "identity" / "tickets.key").read_bytes()).public_key
            agents = await stack.enter_async_context(
                joined_agents(state, addresses.grpc, ["cam-1", "cam-2"])
            )
            async with Client(addresses.grpc, credentials=operator) as client:
                spec = SPEC.format(lines=lines)
                name = (
                    await submit(client, tmp_path / "job", spec, {"follow.py": FOLLOW})
                ).pipeline.id
                await when(
                    client, name, lambda now: all(job.state is JobState.RUNNING for job in now.jobs)
                )
        [sink] = [agent for agent in agents if agent.name == "cam-2"]

        def taken() -> str:
            folders = (sink.state / "attempts").glob("*.sink.*/*/results/all")
            return next(folders, Path(os.devnull)).read_text()

        with lines.open("a") as file:
            file.write("one\n")
        await until(lambda: taken() == "one\n", 60, "a record without a controller")
        for agent in agents:
            agent.kill()
            agent.start()
        with lines.open("a") as file:
            file.write("two\n")
        await until(lambda: taken() == "one\ntwo\n", 60, "a record after the agents began anew")
        with contextlib.closing(sqlite3.connect(sink.state / "agent.db")) as journal:
            [[kept]] = journal.execute("SELECT assignment FROM attempt").fetchall()
        [lane] = Assignment.FromString(kept).lanes
        said = read_ticket(lane.ticket, [key])
        assert (said.producer_node, said.consumer_node) == ("cam-1", "cam-2")
