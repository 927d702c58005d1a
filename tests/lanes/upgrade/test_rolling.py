"""A cluster of the newest release is upgraded while a pipeline streams over it, and goes back; nothing is lost."""

from tests.kit.builds import Build
from tests.lanes.upgrade.counting import Counting, attempts
from tests.lanes.upgrade.mixed_cluster import MixedCluster

BOARDS = ("a", "b", "c")
ONCE = {"source": 1, "double": 1, "sink": 1}


async def test_controller_then_agents_are_upgraded_under_a_pipeline_and_one_goes_back(
    cluster: MixedCluster, release: Build, ours: Build
) -> None:
    """New agents find keepers, stream workers and jobs of the release, and an old one those of a new one."""
    await cluster.start_controller(release)
    for name in BOARDS:
        await cluster.start_agent(name, release)
    counting = await Counting.begun(cluster, release, BOARDS)
    kept = {name: await cluster.kept_processes(name) for name in BOARDS}
    await cluster.stop_controller()
    await cluster.start_controller(ours)
    for name in BOARDS:
        await cluster.connected(name)
    await counting.flows()
    for name, build in (*((name, ours) for name in BOARDS), ("b", release)):
        await cluster.stop_agent(name)
        await cluster.start_agent(name, build)
        await counting.flows()
        assert await cluster.kept_processes(name) == kept[name]
    assert attempts(await counting.ended_well(ours)) == ONCE


async def test_boards_of_both_builds_stream_to_each_other_below_either_controller(
    cluster: MixedCluster, release: Build, ours: Build
) -> None:
    await cluster.start_controller(release)
    for name, build in zip(BOARDS, (release, ours, release), strict=True):
        await cluster.start_agent(name, build)
    counting = await Counting.begun(cluster, ours, BOARDS)  # a new client, an old controller
    for words in (("status", counting.name), ("nodes",)):
        cluster.call(ours, *words)
    await cluster.stop_controller()
    await cluster.start_controller(ours)
    for name in BOARDS:
        await cluster.connected(name)
    await counting.flows()
    for words in (("status", counting.name), ("nodes",)):  # an old client, a new controller
        cluster.call(release, *words)
    assert attempts(await counting.ended_well(release)) == ONCE
    again = await Counting.begun(cluster, release, ("b", "c", "a"))
    assert attempts(await again.ended_well(ours)) == ONCE
