"""A build before 0.1.0 and this one refuse each other in a sentence, and what runs goes on."""

from collections.abc import Callable

from services.runtime.process import ExitCode
from tests.kit.builds import Build
from tests.kit.cluster import when
from tests.kit.until import until
from tests.lanes.upgrade.mixed_cluster import MixedCluster
from tests.lanes.upgrade.store_version import call_version, version_of

BEFORE = "is of a build before 0.1.0, which does not say what it speaks"


async def begin_job(cluster: MixedCluster, build: Build, name: str) -> str:
    """Start a job on a board, and return the name of its process at the keeper."""
    command = f"place: {{require: {{board: {name}}}}}\nrun: sleep 600\n"
    spec = cluster.folder / "long.yaml"
    indented = "".join(f"    {line}\n" for line in command.splitlines())
    spec.write_text(f"name: long\njobs:\n  long:\n{indented}")
    said = cluster.call(build, "run", "--detach", str(spec)).strip()
    async with cluster.client() as client:
        await when(client, said.rpartition("/")[2], lambda view: view.state.name == "RUNNING")
    (job,) = [one for one in await cluster.kept_processes(name) if "long" in one]
    return job


def counted(cluster: MixedCluster, name: str, words: str) -> Callable[[], int]:
    """Count the lines of an agent's log that say this."""
    return lambda: sum(words in line for line in cluster.agents[name].log().splitlines())


async def test_an_agent_before_0_1_0_is_refused_and_its_jobs_go_on(
    cluster: MixedCluster, before: Build, ours: Build
) -> None:
    await cluster.start_controller(before)
    await cluster.start_agent("a", before)
    job = await begin_job(cluster, before, "a")
    kept = await cluster.kept_processes("a")
    await cluster.stop_controller()
    await cluster.start_controller(ours)
    told = counted(cluster, "a", f"the agent of node a {BEFORE}")
    await until(lambda: told() > 0, 60, "the refusal in the log of the agent")
    assert "the agent of node a is the older one; upgrade it" in cluster.agents["a"].log()
    assert "sessions" in cluster.controller.log()
    assert await cluster.kept_processes("a") == kept
    # The agent of this build does not take over what that one keeps, and names the way.
    await cluster.stop_agent("a")
    await cluster.start_agent("a", ours, wait=False)
    assert await cluster.agent_ended("a") == ExitCode.OTHER_VERSION
    said = cluster.agents["a"].log().rstrip().splitlines()[-1]
    assert said.startswith(f"the keeper of this node {BEFORE}, and this agent of version ")
    assert "its jobs go on: start the version again that started this keeper" in said
    assert job in await cluster.kept_processes("a")
    # The way: the older one ends what it keeps, then this one begins.
    await cluster.down("a", before)
    await cluster.start_agent("a", ours)


async def test_an_agent_refuses_a_controller_before_0_1_0_and_says_so_once(
    cluster: MixedCluster, before: Build, ours: Build
) -> None:
    store = cluster.state / "controller.db"
    await cluster.start_controller(before)
    await cluster.stop_controller()
    older = version_of(store)
    await cluster.start_controller(ours)
    await cluster.start_agent("a", ours)
    await begin_job(cluster, ours, "a")
    kept = await cluster.kept_processes("a")
    await cluster.stop_controller()
    later = version_of(store)
    call_version(store, older)  # or that controller would refuse the store
    await cluster.start_controller(before)
    told = counted(cluster, "a", f"the controller {BEFORE}")
    await until(lambda: told() > 0, 60, "the refusal in the log of the agent")
    dials = counted(cluster, "a", "dialling")
    begun = dials()
    async with cluster.client() as client:
        # It is refused within seconds, and there is no second dial for half a minute.
        assert not [node.name for node in await client.nodes() if node.connected]
    assert told() == 1
    assert dials() <= begun + 1
    assert await cluster.kept_processes("a") == kept
    await cluster.stop_controller()
    call_version(store, later)
    await cluster.start_controller(ours)
    await cluster.stop_agent("a")
    await cluster.start_agent("a", ours)  # at once, and not within half a minute
    assert await cluster.kept_processes("a") == kept
