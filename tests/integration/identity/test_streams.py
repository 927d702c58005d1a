"""Streams of a cluster with identity, end to end: controller, agents and stream workers of two nodes."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.identity import Role
from shoal.model import JobState, PipelineState
from tests.integration.identity.nodes import issue, joined_agents, opened_identity
from tests.kit.cluster import contents, describe, job_of, submit, when
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
        cluster = opened_identity(state)
        operator = issue(cluster, Role.OPERATOR, "ann")
        words = ("--streams-security", security)
        async with (
            joined_agents(cluster, addresses.grpc, ["cam-1", "cam-2"], *words),
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
