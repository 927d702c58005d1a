"""Starts on a machine that is not as it should be: a full disk, a read-only one, a user without a home."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.client import Client
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import submit
from tests.kit.controller_process import ControllerProcess
from tests.kit.programs import program
from tests.kit.small_disk import SmallDisk, small_disk
from tests.kit.until import until

QUICK = "name: quick\njobs: {a: {run: 'true'}}\n"
NOBODY = 54321
"""A user that no machine knows."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "64m") as mounted:
        yield mounted


async def test_a_controller_whose_disk_is_full_at_its_start_says_so_and_has_everything_later(
    tmp_path: Path, disk: SmallDisk
) -> None:
    controller = ControllerProcess(tmp_path, "--state", str(disk.path / "state"))
    try:
        await controller.start()
        async with Client(controller.grpc) as client:
            name = (await submit(client, tmp_path / "job", QUICK, {})).pipeline.id
        controller.end(signal.SIGTERM)
        disk.fill()
        with pytest.raises(AssertionError, match="its disk is full; make room there") as refused:
            await controller.start()
        assert "start the controller again" in str(refused.value)
        assert "Traceback" not in str(refused.value)
        disk.empty()
        await controller.start()
        async with Client(controller.grpc) as client:
            assert (await client.get(name)).id == name
    finally:
        controller.end(signal.SIGKILL)


async def test_an_agent_whose_disk_is_full_before_its_first_start_says_so(disk: SmallDisk) -> None:
    agent = AgentProcess("127.0.0.1:9")
    (disk.path / "state").mkdir(mode=0o700)
    disk.fill()
    code, said = await agent.call("--state", str(disk.path / "state"))
    assert code == 2
    assert "make room on the disk" in said
    assert "Traceback" not in said


async def test_an_agent_whose_disk_is_read_only_says_so_and_goes_on_when_it_is_writable(
    disk: SmallDisk,
) -> None:
    agent = AgentProcess("127.0.0.1:9")
    agent.state = disk.path / "state"
    try:
        agent.start()
        await until(lambda: "agent started" in agent.log(), 30, "the first start")
        await agent.terminate()
        code, said = await agent.call("--down")
        assert code == 0, said
        await until(lambda: not agent.processes(), 30, "the end of all of its processes")
        disk.remount("ro")
        agent.start()
        await until(
            lambda: "its disk is read-only, mount it for writing" in agent.log(), 30, "the word"
        )
        disk.remount("rw")
        await until(lambda: agent.log().count("agent started") == 2, 60, "the second start")
        await until(lambda: "the journal is written again" in agent.log(), 30, "a journal again")
        assert "Traceback" not in agent.log()
    finally:
        agent.kill()
        await agent.call("--down")


@pytest.mark.parametrize("process", ["controller", "agent"])
def test_a_user_without_a_home_is_asked_for_a_state_folder(process: str, tmp_path: Path) -> None:
    """As a service, or in a container, of a user that has neither HOME nor a line in /etc/passwd."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    kept = {key: value for key, value in os.environ.items() if key != "HOME"}
    reads = "+dac_override,+dac_read_search"
    command = [
        program("setpriv"), "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
        "--inh-caps", reads, "--ambient-caps", reads, sys.executable, "-m", "shoal.cli", process,
    ]  # fmt: skip
    done = subprocess.run(
        command, env=kept, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, said
    assert "this user has no home folder: set HOME, or name a folder that it may write" in said
    assert "Traceback" not in said
