"""Each attack of a job, at each level: whether it succeeds, by a job that tries it beside a job that has what it wants.

Without a sandbox all of them succeed but those that are never possible: an attack that fails there shows nothing. The
agent is root and runs with `--sandbox none`, so that jobs of all levels run on one node.
"""

import asyncio
import contextlib
import http.server
import json
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.sandbox import SandboxLevel
from tests.integration.sandbox.attack import FOLDER, LEVELS, Attack, attacks, table, written
from tests.kit.cluster import describe, printed, submit_file
from tests.kit.programs import program
from tests.kit.until import until

HERE: Final = Path(__file__).parent
KMSG: Final = "1:11"
"""A device that every kernel has, and that is harmless to open for writing."""
_SANDBOX: Final = {
    "none": "{level: none}",
    "user": "{level: user}",
    "confined": "{level: confined}",
    "no network": "{level: confined, network: none}",
}
_SPEC: Final = """
name: {name}
bundle: .
jobs:
  job:
    run: [/usr/bin/python3, {words}]
    sandbox: {sandbox}
    grace: 20s
    variables: {{VICTIM_TOKEN: victim-secret-{token}}}
    secrets: {secrets}
"""
ALL: Final = attacks()
Outcomes = Mapping[tuple[str, str], Mapping[str, object]]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    """What came of every attack at every level: all are played once, for all tests."""
    if os.geteuid() != 0:
        pytest.skip("an agent that gives jobs users of their own is root")
    program("bwrap")
    state = Path(tempfile.mkdtemp(prefix="shoal-attacks-", dir="/var/tmp"))
    state.chmod(0o755)
    try:
        yield asyncio.run(_played(state))
    finally:
        shutil.rmtree(state, ignore_errors=True)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "attack", [one for one in ALL if not one.elsewhere], ids=lambda one: one.name
)
def test_attack(attack: Attack, level: str, outcomes: Outcomes) -> None:
    outcome = outcomes[attack.name, level]
    assert "broken" not in outcome, outcome["broken"]
    assert outcome["refused"] == attack.refused(level), outcome["words"]


def test_the_document_says_what_is_tried() -> None:
    assert written() == table(ALL), "run `python -m tests.integration.sandbox.attack`"


def test_every_attack_that_is_tried_elsewhere_is() -> None:
    for attack in ALL:
        if attack.elsewhere:
            path, _, name = attack.elsewhere.partition("::")
            assert f"def {name}(" in (HERE.parents[2] / path).read_text(encoding="utf-8"), attack


async def _played(state: Path) -> Outcomes:
    config = LocalClusterConfig(state=state / "cluster", agents=1, cpus=32, mqtt="none")
    config.state.mkdir(0o755)
    (config.state / "shared").touch()  # what is not the cluster's alone is not closed to others
    found: dict[tuple[str, str], Mapping[str, object]] = {}
    async with asyncio.timeout(200), LocalCluster(config) as cluster:
        with _surroundings(state) as around:
            async with cluster.client() as client, asyncio.TaskGroup() as group:
                [node] = await client.nodes()
                assert node.sandbox is not None
                assert node.sandbox.levels == set(SandboxLevel), node.sandbox.refused
                for number, level in enumerate(LEVELS):
                    group.create_task(_level(client, cluster, state, number, level, around, found))
    return found


async def _level(
    client: Client,
    cluster: LocalCluster,
    state: Path,
    number: int,
    level: str,
    around: Mapping[str, str],
    found: dict[tuple[str, str], Mapping[str, object]],
) -> None:
    """Let a victim run at a level, and then the attacks at the same one."""
    slug = level.replace(" ", "-")
    token = f"{state.name}-{slug}"
    segment = 0x5A0A0000 + os.getpid() * len(LEVELS) + number
    secret = f"victim-{slug}"
    await client.set_secret(secret, f"sealed-secret-{token[::-1]}".encode())
    victim = await _submit(
        *(client, state / f"victim-{slug}", level, token, ["victim.py", token, str(segment)]),
        secrets=f"{{VICTIM_KEY: {{name: {secret}, as: file}}}}",
    )
    await until(lambda: _says(client, victim, "ready"), 60, f"the victim of {level}")
    [node] = cluster.agents
    agent = cluster.state_of(node)
    [process] = _with_words("victim.py", token)
    [work] = (agent / "attempts").glob(f"*.{victim}.*/work")
    daemon = f"daemon-{token}"
    world = {
        **around,
        "token": token,
        "segment": str(segment),
        "victim_pid": str(process),
        "victim_work": str(work),
        "victim_key": _variable(process, "VICTIM_KEY"),
        "state": str(agent),
        "sdk": str(next((agent / "sdk").iterdir())),
        "agent_pid": str(_with_words("agent", str(agent))[0]),
        "daemon": daemon,
    }
    attacker = await _submit(
        client, state / f"attacker-{slug}", level, token, ["attacker.py"], world
    )
    ended = await client.when(attacker, lambda seen: seen.state.terminal)
    daemons = _with_words(daemon)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    for line in (await printed(client, attacker)).splitlines():
        outcome = json.loads(line)
        found[outcome["name"], level] = outcome
    found["daemon", level] = {"refused": not daemons, "words": f"daemons are left: {daemons}"}
    for pid in daemons:
        os.kill(pid, signal.SIGKILL)
    await client.cancel(victim)
    await client.when(victim, lambda seen: seen.state.terminal)


async def _submit(
    client: Client,
    folder: Path,
    level: str,
    token: str,
    words: list[str],
    world: Mapping[str, str] | None = None,
    secrets: str = "{}",
) -> str:
    folder.mkdir()
    shutil.copyfile(HERE / words[0], folder / words[0])
    if world is not None:
        shutil.copytree(FOLDER, folder / "attacks", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "world.json").write_text(json.dumps(world))
    spec = _SPEC.format(
        name=folder.name,
        words=", ".join(words),
        sandbox=_SANDBOX[level],
        token=token,
        secrets=secrets,
    )
    (folder / "pipeline.yaml").write_text(spec)
    return (await submit_file(client, folder / "pipeline.yaml")).pipeline.id


async def _says(client: Client, name: str, word: str) -> bool:
    seen = await client.get(name)
    if seen.state.terminal:
        raise AssertionError(describe(seen))
    [job] = seen.jobs
    return job.state is JobState.RUNNING and word in await printed(client, name)


def _variable(pid: int, name: str) -> str:
    """Return a variable of a process."""
    found = Path("/proc", str(pid), "environ").read_bytes().decode().split("\0")
    return next(one.removeprefix(f"{name}=") for one in found if one.startswith(f"{name}="))


def _with_words(*words: str) -> list[int]:
    """Return the processes whose command line has all of these words, those that begin programs for others not."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            said = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if entry.name.isdecimal() and set(words) <= set(said) and Path(said[0]).name != "bwrap":
                found.append(int(entry.name))
    return sorted(found)


@contextlib.contextmanager
def _surroundings(state: Path) -> Iterator[dict[str, str]]:
    """Make what attacks find on a node beside other jobs."""
    major, minor = map(int, KMSG.split(":"))
    nodes = {"device_of_a_group": 0o660, "device_of_all": 0o666}
    for name, mode in nodes.items():
        os.mknod(state / name, stat.S_IFCHR, os.makedev(major, minor))
        (state / name).chmod(mode)
    (state / "file_of_root").write_text("root's own")
    (state / "file_of_root").chmod(0o600)
    shutil.copyfile("/bin/cat", state / "setuid_cat")
    (state / "setuid_cat").chmod(0o4755)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield {
                "metadata": f"127.0.0.1:{server.server_address[1]}",
                "device_number": KMSG,
                **{name: str(state / name) for name in (*nodes, "file_of_root", "setuid_cat")},
            }
        finally:
            server.shutdown()


class _Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as a cloud does to its machines."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"keys of the machine")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        """Say nothing."""
