"""P14, `make chaos-streams`: ten million records through a cluster in which everything is killed.

A controller and three agents as real processes; a source, a stateless middle and a sink on them.
From a seed: programs, stream workers, agents, keepers, controller and whole boards are killed with
SIGKILL, links cut and dropped, stream workers stopped for a while. What was done is written to
`faults.jsonl` before and after it is done, and the sink writes a ledger for each of its attempts; the
verdict comes from these files alone. The source keeps its last records until the last fault is over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from bench.streams import interruptible, private_network
from bench.streams.board_processes import processes_of, send
from bench.streams.history import Verdict, judge, read_ledgers
from bench.streams.lanes import PROGRAMS
from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import PipelineState
from shoal.view import NodeView, PipelineView
from tests.kit.cluster import describe, submit

JOBS = ("count", "square", "ledger")
KINDS = {
    "program": 28, "worker": 16, "agent": 14, "keeper": 12, "board": 12,
    "cut": 8, "drop": 6, "stall": 6, "controller": 4,
}  # fmt: skip
"""How many of a hundred faults are of each kind."""
LINKS = {"cut", "drop"}
PAUSE_SECONDS = (0.3, 4.0)
"""Between the end of a fault and the next."""
RETRY_SECONDS, TRIES = 0.1, 600
RESULT = Path("build") / "bench-streams" / "chaos.json"
SPEC = """
name: chaos
bundle: .
jobs:
  count:
    run: python count.py {count} {gate}
    resources: {{cpus: 0.5}}
    retry: {{attempts: 1000, backoff: 100ms, backoff_limit: 500ms}}
    outputs: [out]
  square:
    run: python square.py
    recovery: resume
    resources: {{cpus: 0.5}}
    retry: {{attempts: 1000, backoff: 100ms, backoff_limit: 500ms}}
    inputs: {{in: count.out}}
    outputs: [out]
  ledger:
    run: python ledger.py {ledger}
    resources: {{cpus: 0.5}}
    retry: {{attempts: 1000, backoff: 100ms, backoff_limit: 500ms}}
    inputs: {{in: square.out}}
"""


class Killer:
    """The hand that breaks things, from a seed; writes down everything that it does.

    Args:
        cluster: suffers.
        client: an open client of it.
        pipeline: id of what runs there.
        chance: draws what breaks, where and when.
        history: takes one JSON object a line, before and after each act.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        client: Client,
        pipeline: str,
        chance: random.Random,
        history: TextIO,
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._pipeline = pipeline
        self._chance = chance
        self._history = history

    async def run(self, kinds: Sequence[str]) -> None:
        """Do one after another, at random moments."""
        for number, kind in enumerate(kinds):
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
            await self._one(number, kind)

    async def _one(self, number: int, kind: str) -> None:
        for _ in range(TRIES):
            if await self._try(number, kind):
                return
            await asyncio.sleep(RETRY_SECONDS)  # what was killed before is not back yet
        raise RuntimeError(f"nothing to break for {TRIES * RETRY_SECONDS:g} s: fault {number}")

    async def _try(self, number: int, kind: str) -> bool:
        """Do it to a job that runs, or to the board under it; False if there was nothing to break."""
        view = await self._view()
        if view.state.terminal:
            raise RuntimeError(f"the pipeline ended before fault {number}: {describe(view)}")
        job = self._chance.choice(JOBS)
        [node] = [one.node for one in view.jobs if one.spec_name == job] or [""]
        if not node and kind != "controller":
            return False
        self._write("begins", number, kind, job, node)
        done = await self._do(kind, job, node)
        self._write("done" if done else "missed", number, kind, job, node)
        return done

    async def _do(self, kind: str, job: str, node: str) -> bool:
        there = await asyncio.to_thread(processes_of, self._cluster, node) if node else None
        kill = signal.SIGKILL
        match kind:
            case "controller":
                return send(self._cluster.controller.pid, kill)
            case "program" if there:
                return send(there.programs.get(f"{job}.py", 0), kill)
            case "worker" if there:
                return send(there.worker, kill)
            case "agent" if there:
                return send(there.agent, kill)
            case "keeper" if there:
                return send(there.keeper, kill)
            case "board":
                await self._cluster.kill_board(node)
                await asyncio.sleep(self._chance.uniform(0.2, 2.0))
                await self._cluster.agents[node].start()
                return True
            case "stall" if there:
                if not send(there.worker, signal.SIGSTOP):
                    return False
                await asyncio.sleep(self._chance.uniform(0.2, 2.5))
                send(there.worker, signal.SIGCONT)
                return True
            case _:
                return await self._break_link(kind, node)

    async def _break_link(self, kind: str, node: str) -> bool:
        [address] = [one.stream_address for one in await self._nodes() if one.name == node] or [""]
        port = int(address.rpartition(":")[2] or 0)
        if not port:
            return False
        act = private_network.cut if kind == "cut" else private_network.drop
        await asyncio.to_thread(act, port)
        await asyncio.sleep(self._chance.uniform(0.05, 0.3 if kind == "cut" else 2.5))
        await asyncio.to_thread(private_network.heal)
        return True

    async def _view(self) -> PipelineView:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ShoalError):
                    return await self._client.get(self._pipeline)
                await asyncio.sleep(0.1)  # the controller was killed a moment ago

    async def _nodes(self) -> Sequence[NodeView]:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ShoalError):
                    return await self._client.nodes()
                await asyncio.sleep(0.1)

    def _write(self, what: str, number: int, kind: str, job: str, node: str) -> None:
        line = {
            "ns": time.monotonic_ns(),
            "what": what,
            "fault": number,
            "kind": kind,
            "job": job,
            "node": node,
        }
        self._history.write(f"{json.dumps(line)}\n")
        self._history.flush()


async def chaos(folder: Path, count: int, faults: int, seed: int, *, links: bool) -> PipelineView:
    """Stream so many records with so many faults; returns the pipeline at its end.

    Raises:
        RuntimeError: It did not end well.
    """
    chance = random.Random(seed)
    kinds = deck(faults, chance, links=links)
    gate = folder / "gate"
    config = LocalClusterConfig(state=folder / "c", agents=3, mqtt="none", cpus=2.0, insecure=True)
    async with (
        LocalCluster(config) as cluster,
        Client(cluster.controller_address, deadline_seconds=60) as client,
        asyncio.TaskGroup() as tasks,
    ):
        supervising = tasks.create_task(cluster.run())
        spec = SPEC.format(count=count, gate=gate, ledger=folder / "ledger")
        files = {f"{job}.py": (PROGRAMS / f"{job}.py").read_text() for job in JOBS}
        submitted = (await submit(client, folder / "bundle", spec, files)).pipeline
        with (folder / "faults.jsonl").open("w") as history:
            await Killer(cluster, client, submitted.id, chance, history).run(kinds)
        await asyncio.to_thread(gate.touch)
        ended = await client.wait(submitted.id, deadline_seconds=600)
        supervising.cancel()
    if ended.state is not PipelineState.SUCCEEDED:
        raise RuntimeError(describe(ended))
    return ended


def deck(faults: int, chance: random.Random, *, links: bool) -> list[str]:
    """Return the kinds of so many faults in their order, in the shares of `KINDS`."""
    weights = {kind: weight for kind, weight in KINDS.items() if links or kind not in LINKS}
    total = sum(weights.values())
    kinds = [kind for kind, weight in weights.items() for _ in range(faults * weight // total)]
    kinds += chance.choices(list(weights), list(weights.values()), k=faults - len(kinds))
    chance.shuffle(kinds)
    return kinds


def faults_done(path: Path) -> Counter[str]:
    """Return how many faults of each kind were done, from the killer's file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return Counter(line["kind"] for line in lines if line["what"] == "done")


def main() -> int:
    """Run from the command line; exit code 1 when a record is lost, repeated or out of order."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.streams.chaos")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", type=Path, help="keep the files of the run in this folder")
    given = parser.parse_args()
    links = True
    try:
        private_network.enter()
    except private_network.NoPrivateNetworkError as error:
        links = False
        print(f"links are not cut or dropped here, run it as root: {error}")
    print(f"seed {given.seed}", flush=True)
    # A short folder, since Unix sockets lie in it.
    folder = Path(tempfile.mkdtemp(prefix="sc", dir="/tmp"))
    began = time.monotonic()
    verdict: Verdict | None = None
    problem = ""
    attempts: dict[str, int] = {}
    try:
        ended = interruptible.run(
            chaos(folder, given.records, given.faults, given.seed, links=links)
        )
        attempts = {job.id: len(job.attempts) for job in ended.jobs}
        verdict = judge(read_ledgers(folder.glob("ledger.*")), given.records)
    except* (RuntimeError, ValueError, ShoalError, TimeoutError) as group:
        problem = "; ".join(repr(one) for one in group.exceptions)
    seconds = time.monotonic() - began
    done = faults_done(folder / "faults.jsonl")
    well = verdict is not None and verdict.intact and done.total() >= given.faults
    if given.keep or not well:
        kept = given.keep or RESULT.parent / f"chaos-{given.seed}"
        shutil.copytree(folder, kept, dirs_exist_ok=True, ignore=_only_text)
        print(f"files: {kept}")
    shutil.rmtree(folder, ignore_errors=True)
    result = {
        "bench": "streams-chaos",
        "seed": given.seed,
        "seconds": round(seconds, 1),
        "faults": done.total(),
        "kinds": dict(done),
        "attempts": attempts,
        "records": verdict.records if verdict else 0,
        "lost": verdict.lost if verdict else given.records,
        "repeated": verdict.repeated if verdict else 0,
        "out_of_order": verdict.out_of_order if verdict else 0,
        "made_up": verdict.made_up if verdict else 0,
        "problem": problem,
        "met": well,
        "load": round(os.getloadavg()[0], 2),
    }
    _show(result)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result))
    print(json.dumps(result))
    return 0 if well else 1


def _only_text(folder: str, names: list[str]) -> set[str]:
    """Keep ledgers, the killer's file and logs, not databases, sockets and spools."""
    return {
        name
        for name in names
        if not (Path(folder, name).is_dir() and name not in {"attempts", "archive", "spool"})
        and not name.startswith(("ledger.", "faults."))
        and not name.endswith((".log", "stderr"))
    }


def _show(result: Mapping[str, object]) -> None:
    for key in ("records", "lost", "repeated", "out_of_order", "made_up", "seconds", "seed"):
        print(f"{key.replace('_', ' '):14}{result[key]}")
    print(f"{'faults':14}{result['faults']}  {result['kinds']}")
    print(f"{'attempts':14}{result['attempts']}")
    if result["problem"]:
        print(f"{'problem':14}{result['problem']}")


if __name__ == "__main__":
    sys.exit(main())
