"""Bundles are on the boards before they are needed there: a failover starts without a transfer."""

import os
from pathlib import Path
from random import Random
from typing import BinaryIO

from shoal.cli.tables import headline
from shoal.model import JobState, PipelineState
from shoal.view import PipelineView, PrefetchView
from tests.kit.cluster import describe, job_of, running_cluster, submit, when

_DEADLINE = 120.0
_SPEC = """
    name: ready
    bundle: .
    prefetch: true
    jobs:
      work:
        run: python work.py
        variables: {{GATE: "{gate}"}}
"""
_WORK = (
    "import os, pathlib\n"
    "data = pathlib.Path('model.txt').read_text()\n"
    "os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)\n"
    "pathlib.Path('results/size.txt').write_text(str(len(data)))\n"
)


def _everywhere(pipeline: PipelineView) -> bool:
    return pipeline.prefetch == PrefetchView(3, 3) and _running(pipeline)


def _running(pipeline: PipelineView) -> bool:
    return job_of(pipeline, "work").state is JobState.RUNNING


async def test_a_failover_with_prefetch_starts_without_a_transfer(tmp_path: Path) -> None:
    """F3."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    state = tmp_path / "cluster"
    # It stays open, so that a program that reads it waits for a byte, and there is one for each attempt.
    with os.fdopen(os.open(gate, os.O_RDWR), "wb", buffering=0) as opened:
        await _play(tmp_path, state, gate, opened)


async def _play(tmp_path: Path, state: Path, gate: Path, opened: BinaryIO) -> None:
    async with running_cluster(state) as (cluster, client):
        model = Random(3).randbytes(300_000).hex()
        submitted = await submit(
            client,
            tmp_path / "bundle",
            _SPEC.format(gate=gate),
            {"work.py": _WORK, "model.txt": model},
        )
        name, digest = submitted.pipeline.id, submitted.pipeline.spec.bundle_digest
        pipeline = await when(client, name, _everywhere)
        assert pipeline.create_time is not None
        line = headline(pipeline, pipeline.create_time).plain
        assert "prefetched on 3 of 3 nodes" in line
        # From now on no board can fetch it.
        [stored] = [
            path
            for path in state.rglob(digest)
            if path.parent.parent.name == "bundles" and "archive" in str(path)
        ]
        stored.unlink()
        stored.with_name(f"{digest}.pieces").unlink()
        first = job_of(pipeline, "work").node
        await cluster.kill_board(first)
        pipeline = await when(
            client, name, lambda one: _running(one) and job_of(one, "work").node != first
        )
        assert pipeline.prefetch == PrefetchView(2, 2)
        opened.write(b"go")
        ended = await client.wait(name, deadline_seconds=_DEADLINE)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        assert ended.prefetch is None
