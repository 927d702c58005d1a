"""Lists as people ask a command for them: the real command at a real controller."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.model import JobState
from shoal.spec import Job, Pipeline
from shoal.v1 import pipeline_pb2
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

SHOAL = Path(sys.executable).parent / "shoal"


async def said(address: str, *words: str) -> str:
    """What a command prints, or why it does not."""
    process = await asyncio.create_subprocess_exec(
        *(str(SHOAL), *words),
        env={**os.environ, "SHOAL_CONTROLLER": address},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return out.decode() if process.returncode == 0 else err.decode()


def rows(table: str) -> list[str]:
    """The first column, without the head and the suffix of an id."""
    return [line.split()[0].rsplit("-", 1)[0] for line in table.splitlines()[1:]]


async def test_lists_have_what_is_asked_for(tmp_path: Path) -> None:
    async with (
        running_controller(tmp_path, lease_seconds=600.0) as addresses,
        Client(addresses.grpc) as client,
    ):
        at = addresses.grpc
        async with connected_agent(at, "node-1", labels={"site": "north"}) as agent:
            await client.submit(Pipeline("broken", (Job("bad", ("x",)),), labels={"site": "north"}))
            ref = (await agent.assignment("bad")).ref
            await agent.observe(ref, JobState.RUNNING)
            reason = pipeline_pb2.Reason(code="EXIT", number=3, message="it broke")
            await agent.observe(ref, JobState.FAILED, reason=reason)
            await client.submit(Pipeline("busy", (Job("main", ("x",), replicas=3),)))
            await agent.observe((await agent.assignment("main-0")).ref, JobState.RUNNING)
            assert rows(await said(at, "status")) == ["busy", "broken"]
            assert rows(await said(at, "status", "--state", "failed")) == ["broken"]
            assert rows(await said(at, "status", "--name", "b?sy")) == ["busy"]
            assert rows(await said(at, "status", "--label", "site=north")) == ["broken"]
            assert rows(await said(at, "status", "--label", "site", "--since", "5m")) == ["broken"]
            assert rows(await said(at, "status", "--node", "node-1")) == ["busy"]
            assert rows(await said(at, "status", "--order", "oldest", "--limit", "1")) == ["broken"]
            assert rows(await said(at, "status", "--order", "ended")) == ["broken"]
            assert await said(at, "status", "--creator", "nobody") == ""
            counts = json.loads(await said(at, "status", "--count", "--json"))
            assert counts["pipelines"] == {"RUNNING": 1, "FAILED": 1}
            assert sum(counts["jobs"].values()) == 4
            assert "1 dead letter: shoal dlq" in await said(at, "status", "--count")
            light = json.loads(await said(at, "status", "--json", "--light", "--name", "busy"))
            assert (light["spec_name"], "spec" in light) == ("busy", False)
            whole = json.loads(await said(at, "status", "--json", "--name", "busy"))
            assert len(whole["jobs"]) == 3
            assert "it broke" in await said(at, "dlq", "--name", "broken", "--label", "site")
            assert "broken" not in await said(at, "dlq", "list", "--creator", "nobody")
            failed = await said(at, "jobs", "--state", "failed", "--node", "node-1")
            assert [line.split()[1:4] for line in failed.splitlines()[1:]] == [
                ["failed", "node-1", "1"]
            ]
            everything = await said(at, "jobs", "--json")
            assert len(everything.splitlines()) == 4
            assert len((await said(at, "jobs", "--limit", "2")).splitlines()) == 3
            assert rows(await said(at, "nodes", "--label", "site=north")) == ["node"]
            assert await said(at, "nodes", "--away") == ""
            assert await said(at, "members", "--state", "dead", "--name", "x") == (
                await said(at, "members", "--name", "x")
            )


async def test_a_watch_of_a_list_takes_out_what_matches_no_longer(tmp_path: Path) -> None:
    async with (
        running_controller(tmp_path, lease_seconds=600.0) as addresses,
        Client(addresses.grpc) as client,
        connected_agent(addresses.grpc) as agent,
    ):
        submitted = await client.submit(Pipeline("busy", (Job("main", ("x",)),)))
        ref = (await agent.assignment("main")).ref
        await agent.observe(ref, JobState.RUNNING)
        watch = await asyncio.create_subprocess_exec(
            *(str(SHOAL), "status", "--watch", "--state", "running"),
            env={**os.environ, "SHOAL_CONTROLLER": addresses.grpc},
            stdout=PIPE,
        )
        assert watch.stdout is not None
        lines: list[str] = []
        while not any(line.startswith(submitted.pipeline.id) for line in lines):
            line = await asyncio.wait_for(watch.stdout.readline(), 60)
            assert line
            lines.append(line.decode())
        await agent.observe(ref, JobState.SUCCEEDED)
        news = (await asyncio.wait_for(watch.stdout.readline(), 60)).decode()
        assert news.rstrip().endswith(f"{submitted.pipeline.id}  is not listed any more")
        watch.terminate()
        await until(lambda: watch.returncode is not None, 60, "the end of the watch")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["status", "--label", "=north"], "has no name: write KEY or KEY=VALUE"),
        (["status", "--since", "tomorrow"], "is no moment"),
        (["status", "--state", "lost"], "is not one of"),
        (["status", "p", "--state", "failed"], "a filter goes with the list of pipelines"),
        (["status", "p", "--count"], "--count goes with the list of pipelines"),
        (["status", "--watch", "--order", "oldest"], "leave out --watch"),
        (["status", "--watch", "--json", "--name", "x"], "add --light"),
        (["status", "--node", "nobody"], "there is no node 'nobody'"),
        (["status", "--name", "x" * 300], "filter.name: it has 300 characters"),
        (["nodes", "--watch", "--away"], "--watch shows all nodes"),
        (["members", "--watch", "--name", "x"], "--watch shows all members"),
        (["jobs", "nobody"], "has no pipeline 'nobody'"),
    ],
)
async def test_what_cannot_be_asked_is_said(tmp_path: Path, words: list[str], why: str) -> None:
    async with running_controller(tmp_path) as addresses:
        assert why in " ".join((await said(addresses.grpc, *words)).split())
