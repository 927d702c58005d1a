"""Keeps the databases of the newest release: `python -m tests.lanes.upgrade.record`, when a release is made.

Its own wheels run a cluster with identity that does real work; what its controller and one of its agents have on the
disk afterwards becomes text below `tests/integration/databases`, with what a client says of it.
"""

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from edge_agent.journal import Journal
from tests.kit.builds import Build, build_of
from tests.kit.cluster import when
from tests.kit.database_text import write_text
from tests.kit.described import described
from tests.kit.releases import newest_release
from tests.kit.tree import ROOT
from tests.lanes.upgrade.counting import Counting
from tests.lanes.upgrade.mixed_cluster import MixedCluster

DATABASES = ROOT / "tests" / "integration" / "databases"
_FAILS = "name: fails\njobs:\n  fails:\n    run: sh -c 'echo no; exit 3'\n    retry: {attempts: 2, backoff: 100ms}\n"
_LONG = "name: long\njobs:\n  long:\n    run: sleep 600\n    place: {require: {board: a}}\n"
_WAITS = "name: waits\njobs:\n  waits:\n    run: 'true'\n    place: {require: {board: nowhere}}\n"


async def record(build: Build, folder: Path) -> None:
    """Let a release work, and keep what it has written."""
    async with MixedCluster() as cluster:
        await cluster.start_controller(build)
        for name in ("a", "b", "c"):
            await cluster.start_agent(name, build)
        counting = await Counting.begun(cluster, build, ("a", "b", "c"))
        await counting.ended_well(build)
        for text in (_FAILS, _LONG, _WAITS):
            spec = cluster.folder / "spec.yaml"
            spec.write_text(text)
            name = cluster.call(build, "run", "--detach", str(spec)).strip().rpartition("/")[2]
            async with cluster.client() as client:
                await when(client, name, lambda view: _settled(view.name, view.state.name))
        cluster.call(build, "drain", "c")
        async with cluster.client() as client:
            said = await described(client)
        for child in (*cluster.agents.values(), cluster.controller):
            await asyncio.to_thread(child.end, signal.SIGTERM)
        write_text(cluster.state / "controller.db", folder / "controller.sql")
        write_text(cluster.home("a") / "agent.db", folder / "agent.sql")
        async with Journal(cluster.home("a") / "agent.db") as journal:
            said["journal"] = {one.ref.name: one.phase.value for one in await journal.load()}
        (folder / "said.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def _settled(name: str, state: str) -> bool:
    if "/fails" in name:
        return state == "FAILED"
    return state == ("RUNNING" if "/long" in name else "QUEUED")


def main() -> None:
    """Record the newest release."""
    newest = newest_release()
    with tempfile.TemporaryDirectory() as folder:
        build = build_of(newest.commit, Path(folder) / "venv", newest.version)
        asyncio.run(record(build, DATABASES / newest.version))
    sys.stdout.write(f"kept in {DATABASES / newest.version}\n")


if __name__ == "__main__":
    main()
