"""The newest release finds files that a later version has written: it says what it cannot do, and harms nothing."""

from pathlib import Path

import pytest

from control.store import schema
from edge_agent.journal import STEPS
from services.runtime.group_commit import open_database
from services.runtime.migration import backup_path, migrate
from services.runtime.process import ExitCode
from shoal.errors import ShoalError
from shoal.model import PipelineState
from tests.kit.builds import Build
from tests.kit.until import until
from tests.lanes.upgrade.counting import Counting, attempts
from tests.lanes.upgrade.mixed_cluster import MixedCluster
from tests.lanes.upgrade.store_version import call_version, version_of

ALONE = ("a", "a", "a")
LATER = "CREATE TABLE of_a_later_version (x);"


def written_later(path: Path, steps: tuple[str, ...]) -> bytes:
    """Bring a file to a version that no release has, as a later program would; returns what it has then."""
    open_database(path, lambda connection: migrate(connection, path, (*steps, LATER))).close()
    return path.read_bytes()


def go_back(path: Path, said: str) -> None:
    """Do what the sentence says."""
    backup = next(word for word in said.split() if word.endswith(".backup"))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        if (path.parent / name).exists():
            (path.parent / name).rename(path.parent / f"{name}.later")
    path.write_bytes(Path(backup).read_bytes())


async def test_a_controller_goes_back_to_the_backup_and_its_node_is_adopted(
    cluster: MixedCluster, release: Build, ours: Build
) -> None:
    store = cluster.state / "controller.db"
    cluster.lease_seconds = 6  # nothing here outlives an agent that is away
    await cluster.start_controller(release)
    await cluster.start_agent("a", release)
    first = await Counting.begun(cluster, release, ALONE)
    await first.ended_well(release)
    await cluster.stop_controller()
    as_it_was, known = store.read_bytes(), version_of(store)
    await cluster.start_controller(ours)
    await cluster.connected("a")
    since = await Counting.begun(cluster, ours, ALONE)
    await cluster.stop_controller()
    if version_of(store) == known:  # this build has what the release has: another one will not
        written_later(store, schema.STEPS)
        backup_path(store, known).write_bytes(as_it_was)
    written, later = version_of(store), store.read_bytes()
    code, said = await cluster.refused_controller(release)
    assert code == ExitCode.OTHER_VERSION
    assert f"has version {written} and this program knows {known}" in said
    assert store.read_bytes() == later, "nothing of it was changed"
    go_back(store, said)
    await cluster.start_controller(release)
    async with cluster.client() as client:

        async def quarantined() -> bool:
            return any("older copy" in node.quarantine for node in await client.nodes())

        await until(quarantined, 60, "the board that knows more than the store")
        assert (await client.get(first.name)).state is PipelineState.SUCCEEDED
        with pytest.raises(ShoalError, match="has no pipeline"):
            await client.get(since.name)
    cluster.call(release, "nodes", "adopt", "a")
    again = await Counting.begun(cluster, release, ALONE)
    await again.ended_well(release)


async def test_an_agent_leaves_a_later_journal_and_its_jobs_alone(
    cluster: MixedCluster, release: Build, ours: Build
) -> None:
    journal = cluster.home("a") / "agent.db"
    await cluster.start_controller(ours)
    await cluster.start_agent("a", ours)
    counting = await Counting.begun(cluster, ours, ALONE)
    kept = await cluster.kept_processes("a")
    await cluster.stop_agent("a")
    later = written_later(journal, STEPS)
    await cluster.start_agent("a", release, wait=False)
    assert await cluster.agent_ended("a") == ExitCode.OTHER_VERSION
    said = cluster.agents["a"].log().rstrip().splitlines()[-1]
    assert f"has version {len(STEPS) + 1} and this program knows {len(STEPS)}" in said
    assert journal.read_bytes() == later
    assert await cluster.kept_processes("a") == kept
    call_version(journal, len(STEPS))  # the later program is started again
    await cluster.start_agent("a", ours)
    await counting.flows()
    assert attempts(await counting.ended_well(ours)) == {"source": 1, "double": 1, "sink": 1}
