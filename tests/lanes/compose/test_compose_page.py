"""`docs/compose.md` is carried out as it stands, and what it promises about containers is looked at on the way."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit.docker import Docker, DockerError, docker
from tests.kit.document_blocks import Block, blocks
from tests.kit.programs import unavailable
from tests.kit.until import until_sync
from tests.lanes.compose.subscriber import received, subscribe
from tests.lanes.compose.walk import FRAMES, LOG, PAGE, Walk

__all__ = ["docker"]

BOARDS: Final = ("board-1", "board-2", "board-3")
SERVICES: Final = (*BOARDS, "controller", "s3", "mosquitto")
COUNTED: Final = FRAMES // 4
"""Records of the counter after which its run is in its middle."""


OUTLIVES: Final = """\
name: outlives
jobs:
  sh:
    run: [sh, -c, "until [ -e /tmp/go ]; do sleep 0.1; done; echo done > results/x"]
    placement: pinned
"""
STRAY: Final = """\
name: stray
bundle: .
jobs:
  six:
    run: python -c "import os, six; print('six', six.__version__, 'of user', os.getuid())"
    environment: {requirements: requirements.txt}
    place: {require: {board: stray}}
"""


@pytest.fixture
def walk(docker: Docker, tmp_path: Path) -> Iterator[Walk]:
    if os.geteuid() != 0:
        unavailable(
            "only root makes the network namespace of another machine; run this lane as root"
        )
    made = Walk(docker, tmp_path)
    with made.prepared():
        yield made


def _carried_out(walk: Walk, block: Block) -> None:
    commands = walk.written(block.commands)
    if "that line" in block.where:
        said = walk.ask("docker compose logs controller")
        commands = re.findall(r"to log in on this host:\s+(docker exec .*)", said)[-1] + "\n"
    if "frames are being counted" in block.where:
        _wait_for_the_middle(walk)
        commands = walk.written(block.commands)
    if "another machine" in block.where:
        walk.bring("viewer.token", "people.sha256")
    # Nodes are there within seconds, and a reader looks again.
    again = block.commands.endswith(("shoal nodes\n", "logs controller\n"))
    differs: list[str] = []

    def done() -> bool:
        differs[:] = [found] if (found := walk.tried(block, commands)) else []
        return not differs or not again

    try:
        until_sync(done, 30, commands)
        assert not differs, f"{block.where}: {commands}{differs[0]}"
    except AssertionError as error:
        error.add_note(walk.logs())
        raise


def _wait_for_the_middle(walk: Walk) -> None:
    """Wait until records were counted, and choose a board that runs a detector, and nothing else if there is one."""

    def counted() -> dict[str, Any] | None:
        view = json.loads(walk.ask("shoal status latest --json 2>/dev/null"))
        records = sum(
            int(stream.get("records", 0))
            for job in view["jobs"]
            if job["name"].endswith("/counter")
            for stream in job.get("streams", ())
        )
        return view if records >= COUNTED else None

    view = until_sync(counted, 120, "the middle of the video")
    assert view is not None
    nodes = {job["name"].rpartition("/")[2]: job["node"] for job in view["jobs"]}
    LOG.info("in the middle: %s", nodes)
    others = {node for job, node in nodes.items() if not job.startswith("detector")}
    detectors = {node for job, node in nodes.items() if job.startswith("detector")}
    walk.victim = min(detectors, key=lambda node: (node in others, node))


@pytest.mark.timeout(900)
def test_the_page_about_compose_is_carried_out(walk: Walk) -> None:
    looks: dict[str, Callable[[Walk], None]] = {
        "2. A pipeline": _look_at_the_containers,
        "5. The end": _look_at_what_was_moved,
    }
    section = ""
    for block in blocks(PAGE):
        if block.section != section:
            section = block.section
            looks.get(section, _nothing)(walk)
        if "--volumes" in block.commands:
            _look_at_the_ends(walk)
        _carried_out(walk, block)
    assert walk.docker("volume", "ls", "--quiet", "--filter", f"name={walk.project}_") == ""


def _nothing(_walk: Walk) -> None:
    """There is nothing to look at."""


def _look_at_the_containers(walk: Walk) -> None:
    """Rights, limits, health and cost of what the file starts."""
    subscribe(walk.mqtt_port)
    for service in SERVICES:
        found = walk.inspected(service)
        limits = found["HostConfig"]
        assert limits["ReadonlyRootfs"], service
        assert limits["CapDrop"] == ["ALL"], service
        assert limits["SecurityOpt"] == ["no-new-privileges:true"], service
        assert found["Config"]["User"] not in {"", "0", "root"}, service
    for board in BOARDS:
        until_sync(partial(_is_healthy, walk, board), 60, f"{board} is healthy")
        with pytest.raises(DockerError, match="Read-only file system"):
            walk.inside(board, "echo x > /usr/x")
    nodes = [json.loads(line) for line in walk.ask("shoal nodes --json 2>/dev/null").splitlines()]
    offered = {node["name"]: node["capacity"] for node in nodes}
    for board in BOARDS:
        assert offered[board] == {"cpus": 2.0, "memory_bytes": 1 << 30, "devices": []}
    LOG.info("idle:\n%s", walk.docker("stats", "--no-stream", *map(walk.container, SERVICES)))
    LOG.info("images:\n%s", walk.docker("images", "--filter", f"reference=shoal-*:{walk.tag}"))


def _is_healthy(walk: Walk, service: str) -> bool:
    return bool(walk.inspected(service)["State"]["Health"]["Status"] == "healthy")


def _look_at_what_was_moved(walk: Walk) -> None:
    """The board that was killed ran something, which ran elsewhere afterwards."""
    view = json.loads(walk.ask("shoal status latest --json 2>/dev/null"))
    moved = [job["name"] for job in view["jobs"] if len(job["attempts"]) > 1]
    LOG.info("placed more than once: %s", moved)
    assert moved
    final = f"{view['namespace']}/{view['name']}/succeeded/1"
    received(walk.mqtt_port, lambda ids: final in ids)
    _kill_an_agent_under_its_job(walk)
    _run_as_any_user(walk)


def _kill_an_agent_under_its_job(walk: Walk) -> None:
    """The keeper outlives the agent in its container: the job goes on, and the next agent takes it over.

    It is pinned: on a machine with much other work the next agent may begin after gossip has given up the board.
    """
    folder = walk.home("this") / "outlives"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(OUTLIVES)
    walk.ask("shoal run --detach outlives")

    def running() -> dict[str, Any] | None:
        (found,) = json.loads(walk.ask("shoal status latest --json 2>/dev/null"))["jobs"]
        return found if found["state"] == "RUNNING" else None

    found = until_sync(running, 30, "the job runs")
    assert found is not None
    board = str(found["node"])
    agent = (
        "for p in /proc/[0-9]*; do "
        "tr '\\0' ' ' < $p/cmdline | grep -q '/shoal agent' && echo ${p#/proc/}; done; true"
    )
    before = walk.inside(board, agent).split()
    walk.inside(board, f"kill -9 {before[-1]}")
    until_sync(lambda: walk.inside(board, agent).split() not in ([], before), 30, "another agent")
    walk.inside(board, "touch /tmp/go")
    assert "succeeded" in walk.ask("shoal status --watch latest")
    (after,) = json.loads(walk.ask("shoal status latest --json 2>/dev/null"))["jobs"]
    assert (after["node"], len(after["attempts"])) == (board, 1)
    assert walk.inspected(board)["RestartCount"] == 0


def _run_as_any_user(walk: Walk) -> None:
    """A board of a user that its image does not know, without a home, runs a job with requirements."""
    token = walk.inside("controller", "shoal token create --role node --name stray").strip()
    board = f"{walk.project}-stray"
    variables = {
        "HOME": "",
        "SHOAL_TOKEN": token,
        "SHOAL_AGENT_CONTROLLER": "controller:7470",
        "SHOAL_AGENT_JOIN": "controller:7946",
        "SHOAL_AGENT_LABEL": "board=stray",
    }
    walk.docker(
        "run", "--detach", "--init", "--read-only", "--name", board, "--hostname", "stray",
        "--network", f"{walk.project}_default", "--user", "4321:4321", "--cap-drop", "ALL", "--memory", "512m",
        "--tmpfs", "/run/shoal", "--tmpfs", "/tmp:exec", "--tmpfs", "/var/lib/shoal:uid=4321,gid=4321,exec",
        *(f"--env={name}={value}" for name, value in variables.items()),
        f"shoal-agent:{walk.tag}", "agent", "--sandbox", "none", "--cpus", "1.5",
    )  # fmt: skip
    try:
        folder = walk.home("this") / "stray"
        folder.mkdir()
        (folder / "requirements.txt").write_text("six==1.17.0\n")
        (folder / "pipeline.yaml").write_text(STRAY)
        said = walk.ask("shoal run stray")
        assert "six 1.17.0 of user 4321" in said, said
        nodes = [
            json.loads(line) for line in walk.ask("shoal nodes --json 2>/dev/null").splitlines()
        ]
        (capacity,) = (node["capacity"] for node in nodes if node["name"] == "stray")
        # What was said wins over what was found.
        assert (capacity["cpus"], capacity["memory_bytes"]) == (1.5, 512 << 20)
        walk.docker("stop", board)
        (ended,) = json.loads(walk.docker("inspect", board))
        assert ended["State"]["ExitCode"] == 0
    finally:
        walk.docker("rm", "--force", "--volumes", board)


def _look_at_the_ends(walk: Walk) -> None:
    """Every container ended in good order when it was asked to."""
    ends = {service: walk.inspected(service)["State"]["ExitCode"] for service in SERVICES}
    assert ends == dict.fromkeys(SERVICES, 0), walk.logs()
    logs = walk.ask("docker compose logs --no-color")
    assert "Traceback" not in logs, logs


logging.getLogger("compose").setLevel(logging.INFO)
