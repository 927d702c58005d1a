"""The health file of a controller and of an agent, read as a probe reads it."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path

import pytest

from services.runtime.health_file import HealthFile
from tests.kit.agent_process import AgentProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.tree import text
from tests.kit.until import until

PROBE = (
    'read up _ < /proc/uptime && read at < "$0" && '
    '[ "$at" -le "${up%%.*}" ] && [ $((${up%%.*} - at)) -lt 20 ]'
)
"""That of edge_agent/Dockerfile."""


def well(path: Path) -> bool:
    """Say what a probe of a container says."""
    return (
        subprocess.run(["sh", "-c", PROBE, str(path)], check=False, capture_output=True).returncode
        == 0
    )


async def test_controller_and_agent_are_well_until_they_end(tmp_path: Path) -> None:
    controllers, agents = tmp_path / "controller.health", tmp_path / "agent.health"
    async with ControllerProcess(tmp_path, "--health-file", str(controllers)) as controller:
        await until(lambda: well(controllers), 20, "the controller is well")
        async with AgentProcess(controller.grpc, "--health-file", str(agents)) as agent:
            await until(lambda: well(agents), 20, "the agent is well")
            agent.end(signal.SIGTERM)
            assert not agents.exists()
        controller.end(signal.SIGTERM)
        assert not controllers.exists()


async def test_a_process_that_stands_still_is_not_well(tmp_path: Path) -> None:
    path = tmp_path / "health"
    long_ago = -100.0  # before the machine started, since it may have started a moment ago
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(HealthFile(path, lambda: long_ago).run())
        await until(path.exists, 5, "the file is there")
        assert path.read_text() == "-100\n"
        assert not well(path)
        keeping.cancel()
    assert not path.exists()


def test_what_a_start_of_the_machine_before_has_left_is_not_well(tmp_path: Path) -> None:
    """Power fails, nothing removes the file, and no agent comes up any more."""
    path = tmp_path / "health"
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    path.write_text(f"{now}\n")
    assert well(path)
    path.write_text(f"{now + 1_000}\n")
    assert not well(path)


@pytest.mark.parametrize(
    "file", ["edge_agent/Dockerfile", "control/Dockerfile", "compose/docker-compose.yml"]
)
def test_every_probe_is_this_one(file: str) -> None:
    words = text(Path(file)).replace("$$", "$")
    for part in PROBE.split(' < "$0" && '):
        assert part in words


async def test_a_folder_that_is_not_there_harms_nothing(tmp_path: Path) -> None:
    health = HealthFile(tmp_path / "away" / "health", lambda: 5.0)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(health.run())
        await until(lambda: health._failed.counts, 5, "it has tried")
        assert not keeping.done()
        keeping.cancel()
