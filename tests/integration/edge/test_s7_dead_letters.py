"""Case S7, its retries: nine failures with back-off, and the tenth makes a dead letter with all ten attempts' words."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal.model import PipelineState
from tests.kit.cluster import all_events, contents, describe, submit
from tests.kit.edge import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTEMPTS = 10
SPEC = """
name: scan
bundle: .
jobs:
  process:
    run: [sh, main.sh, "{mended}"]
    retry: {{attempts: 10, backoff: 20ms, backoff_limit: 100ms}}
"""
CODE = """
if test -e "$1"; then echo mended > results/x; exit 0; fi
echo "O'Brien's scan {$SHOAL_ATTEMPT} is \\"broken\\"" >&2
exit 7
"""


async def shoal(edge: Edge, *words: str, status: int = 0) -> str:
    """Run a command and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal.cli", *words),
        *("--controller", edge.cluster.controller_address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == status, said.decode()
    return said.decode()


def documents(said: str) -> list[dict[str, Any]]:
    """The lines of JSON that a command printed."""
    return [json.loads(line) for line in said.splitlines()]


async def test_s7_ten_attempts_fail_are_kept_with_their_words_and_run_again_once(
    edge: Edge, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    spec = SPEC.format(mended=mended)
    submitted = await submit(edge.client, tmp_path / "p", spec, {"main.sh": CODE})
    name = submitted.pipeline.id
    ended = await edge.client.wait(name, deadline_seconds=120)
    assert ended.state is PipelineState.FAILED, describe(ended)

    [letter] = documents(await shoal(edge, "dlq", "list", "--json"))
    assert (letter["id"], letter["dead_letter"]) == (name, "KEPT")
    [job] = letter["jobs"]
    assert len(job["attempts"]) == ATTEMPTS
    for number, attempt in enumerate(job["attempts"], 1):
        assert attempt["reason"]["code"] == "EXIT"
        assert attempt["reason"]["number"] == 7
        assert f"O'Brien's scan {{{number}}} is \"broken\"" in attempt["reason"]["message"]
        assert attempt["node"] in edge.cluster.agents
    listed = await shoal(edge, "dlq")
    assert f"{name}/process" in listed
    assert "EXIT 7" in listed
    shown = await shoal(edge, "dlq", "show", f"{name}/process")
    for number in range(1, ATTEMPTS + 1):
        assert f"attempt {number} on node-" in shown
        assert f"scan {{{number}}}" in shown
        assert f"shoal logs {name}/process --attempt {number}" in shown
    assert f"shoal revive {name}" in shown

    mended.touch()
    assert "no such dead letter" in await shoal(edge, "revive", "--all", "--reason", "OOM")
    said = await shoal(edge, "revive", "--all", "--reason", "exit 7", "--name", "scan-*")
    assert said.startswith(f"pipelines/{name} was revived as pipelines/scan-")
    new = said.split()[-1]
    again = await shoal(edge, "revive", f"{name}/process")
    assert again == f"pipelines/{name} was revived before as {new}\n"
    assert await shoal(edge, "dlq", "list", "--json") == ""
    revived = await edge.client.wait(new, deadline_seconds=60)
    assert revived.state is PipelineState.SUCCEEDED, describe(revived)
    assert revived.revived_from == name
    assert await contents(edge.client, revived, "results/x", tmp_path / "x") == b"mended\n"
    assert (await edge.client.get(name)).revived_by == revived.id
    assert f"revived from {name}" in await shoal(edge, "status", revived.id)
    assert f"revived as {revived.id}" in await shoal(edge, "status", name)

    told = list(await all_events(edge.client, ended.name))
    assert [event.type for event in told].count("shoal.job.retry") == ATTEMPTS - 1
    assert [event.type for event in told].count("shoal.pipeline.failed") == 1


async def test_a_letter_is_discarded_and_what_is_none_is_refused_in_a_sentence(
    edge: Edge, tmp_path: Path
) -> None:
    spec = "{name: fails, jobs: {a: {run: 'false'}}}"
    name = (await submit(edge.client, tmp_path, spec, {})).pipeline.id
    await edge.client.wait(name, deadline_seconds=60)
    assert await shoal(edge, "dlq", "discard", name) == f"pipelines/{name} is discarded\n"
    assert name not in await shoal(edge, "dlq", "list")
    said = await shoal(edge, "revive", name, status=1)
    assert f"pipelines/{name} was discarded" in said
    assert "give the names of dead letters, or --all" in await shoal(edge, "revive", status=2)


async def test_a_letter_whose_bundle_is_gone_is_not_revived(edge: Edge, tmp_path: Path) -> None:
    spec = "{name: fails, bundle: ., jobs: {a: {run: sh main.sh}}}"
    code = {"main.sh": "exit 3", "padding": str(tmp_path)}  # a bundle of its own
    name = (await submit(edge.client, tmp_path / "p", spec, code)).pipeline.id
    ended = await edge.client.wait(name, deadline_seconds=60)
    key = f"archive/bundles/sha256/{ended.spec.bundle_digest}"
    await edge.s3.delete_object(Bucket=edge.archive, Key=key)
    said = await shoal(edge, "revive", name, status=1)
    assert "is not in the archive any more: submit its folder again" in said
    assert name in await shoal(edge, "dlq")
