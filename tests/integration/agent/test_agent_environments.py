"""Environments on a real agent: what they are built from, how often, and what their builds can see."""

import json
import os
import platform
from pathlib import Path

from edge_agent.keeper.strays import environment
from shoal.model import JobState
from shoal.spec import Environment, EnvironmentStep, Job, PipStep, RequirementsStep, WheelStep
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.bundle_archive import source_of, tar_of, wheel_of
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

PRINTS = ("python", "-c", "import mine; print(mine.VALUE)")


async def printed(board: Board, name: str, step: EnvironmentStep, bundle: bytes) -> str:
    """What a job prints that needs an environment of one step."""
    ref = board.run(Job(name, PRINTS, environment=Environment(steps=(step,))), bundle)
    assert await board.end(ref, 60) is JobState.SUCCEEDED, board.controller.reason(ref)
    await board.idle()
    return board.artifact(ref, "stdout").decode().strip()


async def test_k1_a_rebuilt_wheel_of_the_same_name_is_installed(board: Board) -> None:
    bundles: list[bytes] = []
    for value in ("one", "two"):
        name, wheel = wheel_of("mine", "1.0", f"VALUE = {value!r}\n")
        bundles.append(tar_of({f"wheels/{name}": wheel, "r.txt": f"wheels/{name}\n"}))
    step = RequirementsStep("r.txt")
    said = [await printed(board, "a", step, bundle) for bundle in (*bundles, bundles[1])]
    assert said == ["one", "two", "two"]
    assert board.agent.log().count("environment built") == 2


async def test_k2_k4_options_are_known_however_they_are_spelled_and_paths_where_they_lead(
    board: Board,
) -> None:
    name, wheel = wheel_of("mine", "1.0", "VALUE = 'here'\n")
    bundle = tar_of(
        {
            name: wheel,
            "lists/dev.txt": "-r ../base.txt\n",
            "base.txt": f"\ufeff./{name} ; python_version > '3'\n",
        }
    )
    for number, words in enumerate((("-rlists/dev.txt",), ("--requirement=lists/dev.txt",))):
        assert await printed(board, f"job-{number}", PipStep(words), bundle) == "here"
    assert await printed(board, "list", RequirementsStep("lists/dev.txt"), bundle) == "here"


async def test_k2_a_step_without_effect_is_refused_with_the_remedy(board: Board) -> None:
    job = Job("none", PRINTS, environment=Environment(steps=(PipStep(("--no-deps",)),)))
    ref = board.run(job)
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert (code, "put it before the steps" in message) == ("INSTALL", True)


async def test_k3_an_editable_install_works_as_often_as_it_is_run(board: Board) -> None:
    bundle = tar_of({**source_of("libs", "VALUE = 1\n"), "r.txt": "-e ./libs\n"})
    for _ in range(2):
        assert await printed(board, "a", RequirementsStep("r.txt"), bundle) == "1"
    assert board.agent.log().count("environment built") == 1
    assert await printed(board, "b", PipStep(("--editable=./libs",)), bundle) == "1"
    changed = tar_of({**source_of("libs", "VALUE = 2\n"), "r.txt": "-e ./libs\n"})
    assert await printed(board, "a", RequirementsStep("r.txt"), changed) == "2"


async def test_a_wheel_for_another_processor_is_refused_with_both_named(board: Board) -> None:
    other = "x86_64" if platform.machine() == "aarch64" else "aarch64"
    _, wheel = wheel_of("mine", "1.0", "VALUE = 1\n")
    file = f"wheels/mine-1.0-cp311-cp311-manylinux_2_17_{other}.whl"
    bundle = tar_of({file: wheel, "r.txt": f"./{file}\n"})
    for name, step in (("wheel", WheelStep(file)), ("list", RequirementsStep("r.txt"))):
        ref = board.run(Job(name, PRINTS, environment=Environment(steps=(step,))), bundle)
        assert await board.end(ref, 60) is JobState.FAILED
        code, _, message = board.controller.reason(ref)
        assert code == "INSTALL"
        assert f"({file}) dependency is incompatible with the current platform" in message
        assert f"compatible with Linux (`manylinux_2_17_{other}`)" in message
        assert f"_{platform.machine()}`)" in message


async def test_builds_keeper_and_stream_worker_get_the_variables_that_are_named_for_them() -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "s3cr3t-1", "SHOAL_AGENT_GOSSIP_LABEL": "s3cr3t-2",
        "GITHUB_TOKEN": "s3cr3t-3", "UV_PUBLISH_TOKEN": "s3cr3t-4",
    }  # fmt: skip
    given = {
        "LC_TIME": "C", "https_proxy": "http://127.0.0.1:9", "PIP_TIMEOUT": "9", "HOME": "/proc/absent",
        "TMPDIR": "/proc/absent/tmp", "XDG_CACHE_HOME": "/proc/absent/cache",
    }  # fmt: skip
    kept = {name: os.environ[name] for name in ("PATH", "SSL_CERT_FILE") if name in os.environ}
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, environ={**kept, **given, **secrets}) as agent,
    ):
        board = Board(objects, controller, agent)
        await board.connected()
        script = (
            "import json, os, sys, pathlib\n"
            "print((pathlib.Path(sys.prefix).glob('lib/*/site-packages/mine_built_with.json'))"
            ".__next__().read_text())\n"
            "print(json.dumps(dict(os.environ)))\n"
        )
        recipe = Environment(steps=(PipStep(("./libs",)),))
        job = Job("a", ("python", "show.py"), environment=recipe)
        ref = board.run(job, tar_of({**source_of("libs", ""), "show.py": script}))
        assert await board.end(ref, 60) is JobState.SUCCEEDED, controller.reason(ref)
        lines = board.artifact(ref, "stdout").decode().splitlines()
        build, of_job = (dict[str, str](json.loads(line)) for line in lines)
        await until(lambda: len(agent.processes()) >= 3, 20, "agent, keeper and stream worker")
        others = [environment(pid) for pid in agent.processes() if pid != agent.process.pid]  # type: ignore[union-attr]
        assert (build["PIP_TIMEOUT"], build["LC_TIME"]) == ("9", "C")
        assert Path(build["HOME"]).is_relative_to(agent.state)
        assert Path(build["UV_CACHE_DIR"]).is_relative_to(agent.state)
        assert (of_job["HOME"], of_job["https_proxy"]) == (given["HOME"], given["https_proxy"])
        assert "PIP_TIMEOUT" not in of_job
        assert len(others) >= 2
        for found in (build, of_job, *others):
            assert "s3cr3t" not in str(found)
            assert found["PATH"].endswith(kept["PATH"])


async def test_what_a_running_job_uses_outlives_an_agent_that_is_killed_and_the_rest_goes(
    tmp_path: Path,
) -> None:
    """The agent is killed as soon as it says that it removes one; the job imports at its end what it stands in."""
    fifo = tmp_path / "end"
    os.mkfifo(fifo)
    bundles: dict[str, bytes] = {}
    for value in "abcd":
        name, wheel = wheel_of("mine", "1.0", f"VALUE = {value!r}\n", {"pad.txt": "x" * 300_000})
        bundles[value] = tar_of({f"wheels/{name}": wheel, "r.txt": f"wheels/{name}\n"})
    recipe = Environment(steps=(RequirementsStep("r.txt"),))
    code = f"open({str(fifo)!r}).read(); import mine; print(mine.VALUE)"
    options = ("--environment-cache", "900kB")
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, *options) as agent,
    ):
        board = Board(objects, controller, agent)
        await board.connected()
        long = board.run(Job("long", ("python", "-c", code), environment=recipe), bundles["a"])
        await board.state(long, JobState.RUNNING, 60)
        for value in "bc":
            ref = board.run(Job(value, PRINTS, environment=recipe), bundles[value])
            assert await board.end(ref, 60) is JobState.SUCCEEDED, controller.reason(ref)
            controller.remove(ref)
            await until(lambda: len(agent.attempts()) == 1, 30, "one attempt left")
        ref = board.run(Job("d", PRINTS, environment=recipe), bundles["d"])
        await until(lambda: "environment evicted" in agent.log(), 60, "a removal")
        agent.kill()
        agent.start()
        assert await board.end(ref, 60) is JobState.SUCCEEDED, controller.reason(ref)
        fifo.write_text("now")
        assert await board.end(long, 60) is JobState.SUCCEEDED, controller.reason(long)
        assert board.artifact(long, "stdout").decode().strip() == "a"
        again = board.run(Job("b", PRINTS, environment=recipe), bundles["b"])
        assert await board.end(again, 60) is JobState.SUCCEEDED, controller.reason(again)
        assert board.artifact(again, "stdout").decode().strip() == "b"
        trash = agent.state / "trash"
        await until(lambda: not any(trash.iterdir()), 60, "an empty trash")
        assert len(list((agent.state / "environments").iterdir())) <= 3
