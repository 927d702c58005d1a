"""Jobs that take all that there is: each fails for what it took, its neighbours go on, and its board stays alive.

One board, whose agent is root, plays all bombs of a level at once, beside a neighbour that says ten times a second that
it is there. The members of gossip are watched meanwhile: none of them is ever anything but alive.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from compose.local_cluster import LocalCluster, LocalClusterConfig
from edge_agent.cgroup_limits import own_groups
from shoal.client import Client
from shoal.model import JobState, MemberState, ReasonCode
from shoal.sandbox import Claim, Sandbox, SandboxLevel
from shoal.spec import Environment, Job, Pipeline, Resources
from shoal.view import JobView, MemberView
from tests.integration.sandbox.test_attacks import _with_words
from tests.kit.cluster import describe, job_of, printed
from tests.kit.programs import program
from tests.kit.until import until

MIB: Final = 1 << 20
LEVELS: Final = (SandboxLevel.USER, SandboxLevel.CONFINED)
GAP_SECONDS: Final = 5.0
"""So long may a neighbour be silent where the machine has other work; on a board that is taken it is for ever."""

FORKS: Final = "import os\nwhile True:\n    if os.fork() == 0: os.setsid()"
STUBBORN: Final = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
GROWS: Final = "held = []\nwhile True: held.append(b'x' * (1 << 20))"
SPREADS: Final = """
import os, signal
for _ in range(8):
    if os.fork() == 0:
        held = b'x' * (64 << 20)
        signal.pause()
while True:
    pid, status = os.wait()
    if status: raise SystemExit(9)
"""
FILE_IN_MEMORY: Final = """
import os
file = os.memfd_create('bomb')
while True: os.write(file, b'x' * (1 << 20))
"""
ONE_FILE: Final = "with open('bomb', 'wb') as file:\n    while True: file.write(b'x' * (1 << 20))"
MANY_FILES: Final = """
import itertools, threading
for number in itertools.count():
    open(f'bomb-{number}', 'wb').write(b'x' * (1 << 18))
    threading.Event().wait(0.02)
"""
NO_NAME: Final = """
import os, threading
held = []
for number in range(200):
    file = open('bomb', 'wb')
    os.unlink('bomb')
    file.write(b'x' * (1 << 18))
    file.flush()
    held.append(file)
threading.Event().wait()
"""
NEIGHBOUR: Final = """
import threading, time
while True:
    print(time.monotonic(), flush=True)
    threading.Event().wait(0.1)
"""


@dataclass(frozen=True, slots=True)
class Bomb:
    """A program, and what its attempt ends with."""

    code: str
    claims: Resources
    reason: ReasonCode
    words: str
    timeout_seconds: float = 0.0


def claims(*, memory_bytes: int = 0, processes: int = 0, disk_bytes: int = 0) -> Resources:
    return Resources(0.25, memory_bytes, processes=processes, disk_bytes=disk_bytes)


BOMBS: Final[Mapping[str, Bomb]] = {
    "forks": Bomb(FORKS, claims(processes=48), ReasonCode.PROCESSES, "it may have 48 at once"),
    "forks-on": Bomb(STUBBORN, claims(processes=48), ReasonCode.TIMEOUT, "", 4.0),
    "grows": Bomb(GROWS, claims(memory_bytes=48 * MIB), ReasonCode.OOM, "than the 48.0 MiB"),
    "spreads": Bomb(SPREADS, claims(memory_bytes=96 * MIB), ReasonCode.OOM, "than the 96.0 MiB"),
    "file-in-memory": Bomb(
        FILE_IN_MEMORY, claims(memory_bytes=48 * MIB), ReasonCode.OOM, "than the 48.0 MiB"
    ),
    "one-file": Bomb(ONE_FILE, claims(disk_bytes=8 * MIB), ReasonCode.DISK, "than the 8.0 MiB"),
    "many-files": Bomb(MANY_FILES, claims(disk_bytes=8 * MIB), ReasonCode.DISK, "than the 8.0 MiB"),
    "no-name": Bomb(NO_NAME, claims(disk_bytes=8 * MIB), ReasonCode.DISK, "than the 8.0 MiB"),
}


@dataclass(slots=True)
class Outcome:
    """What came of the bombs of a level."""

    jobs: dict[str, JobView] = field(default_factory=dict[str, JobView])
    said: list[float] = field(default_factory=list[float])
    """When the neighbour was there, on its clock."""
    members: set[MemberState] = field(default_factory=set[MemberState])
    connected: set[bool] = field(default_factory=set[bool])
    left: list[int] = field(default_factory=list[int])


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Mapping[SandboxLevel, Outcome]]:
    """What came of all bombs at each level, played once for all tests."""
    if os.geteuid() != 0:
        pytest.skip("an agent that gives jobs users of their own is root")
    if not any({"memory", "pids"} & own.controllers or own.unified for own in own_groups()):
        pytest.skip("no control groups are here")
    program("bwrap")
    state = Path(tempfile.mkdtemp(prefix="shoal-bombs-", dir="/var/tmp"))
    state.chmod(0o755)
    try:
        yield asyncio.run(_played(state))
    finally:
        shutil.rmtree(state, ignore_errors=True)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.value)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_fails_for_what_it_took(
    name: str, level: SandboxLevel, outcomes: Mapping[SandboxLevel, Outcome]
) -> None:
    bomb, job = BOMBS[name], outcomes[level].jobs[name]
    assert job.state is JobState.FAILED
    assert job.reason.code is bomb.reason, job.reason.message
    assert bomb.words in job.reason.message


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.value)
def test_neighbours_go_on_and_the_board_stays_alive(
    level: SandboxLevel, outcomes: Mapping[SandboxLevel, Outcome]
) -> None:
    found = outcomes[level]
    gaps = [later - sooner for sooner, later in zip(found.said, found.said[1:], strict=False)]
    assert max(gaps) < GAP_SECONDS
    assert found.jobs["neighbour"].state is JobState.CANCELLED
    assert found.members == {MemberState.ALIVE}
    assert found.connected == {True}
    assert found.left == []
    print(f"{level.value}: the neighbour was silent for {max(gaps):.2f} s at most")  # noqa: T201 - the figure


async def _played(state: Path) -> Mapping[SandboxLevel, Outcome]:
    config = LocalClusterConfig(state=state / "cluster", agents=1, cpus=32, mqtt="none")
    config.state.mkdir(0o755)
    (config.state / "shared").touch()  # what is not the cluster's alone is not closed to others
    async with asyncio.timeout(200), LocalCluster(config) as cluster, cluster.client() as client:
        [node] = await client.nodes()
        assert node.sandbox is not None
        assert set(node.sandbox.enforces) == set(Claim), node.sandbox
        return {level: await _level(client, level) for level in LEVELS}


async def _level(client: Client, level: SandboxLevel) -> Outcome:
    found = Outcome()
    beside = await _submit(client, "neighbour", NEIGHBOUR, claims(), level)
    await until(lambda: _speaks(client, beside), 60, "that the neighbour is there")
    names = {
        name: await _submit(client, name, bomb.code, bomb.claims, level, bomb.timeout_seconds)
        for name, bomb in BOMBS.items()
    }
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch(client, found))
        for name, pipeline in names.items():
            ended = await client.wait(pipeline, deadline_seconds=100)
            assert ended.state.terminal, describe(ended)
            found.jobs[name] = job_of(ended, name)
        watch.cancel()
    found.connected = {node.connected for node in await client.nodes()}
    found.left = [pid for name in BOMBS for pid in _with_words(f"bomb-{name}-{level.value}")]
    await client.cancel(beside)
    ended = await client.when(beside, lambda seen: seen.state.terminal)
    found.jobs["neighbour"] = job_of(ended, "neighbour")
    found.said = [float(line) for line in (await printed(client, beside)).splitlines()]
    return found


async def _watch(client: Client, found: Outcome) -> None:
    async for seen in client.watch_members():
        if isinstance(seen, MemberView):
            found.members.add(seen.state)


async def _speaks(client: Client, name: str) -> bool:
    return bool(await printed(client, name))


async def _submit(
    client: Client,
    name: str,
    code: str,
    resources: Resources,
    level: SandboxLevel,
    timeout_seconds: float = 0.0,
) -> str:
    job = Job(
        name,
        ("/usr/bin/python3", "-c", code, f"bomb-{name}-{level.value}"),
        environment=Environment(python="system"),
        resources=resources,
        sandbox=Sandbox(level, enforce=frozenset({Claim.CPUS})),
        timeout_seconds=timeout_seconds,
        grace_seconds=0.5,
    )
    return (await client.submit(Pipeline(name, (job,)))).pipeline.id
