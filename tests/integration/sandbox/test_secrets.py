"""A job gets its secrets on a board, and nothing that leaves the board or stays on its disk has them."""

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.long_work import done_at_once
from edge_agent.secrets.secret_folders import BASES, SecretFolders
from edge_agent.secrets.secret_mask import SecretMask
from edge_agent.uploads.collect import collect
from shoal.model import JobState, PipelineState
from shoal.names import AttemptRef
from shoal.secret import SecretForm, SecretUse
from shoal.spec import ArchiveOn, Environment, Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess, ended
from tests.kit.cluster import all_events, printed, submit
from tests.kit.edge import running_edge
from tests.kit.mosquitto import Mosquitto
from tests.kit.object_server import ObjectServer
from tests.kit.s3_servers import Ministack
from tests.kit.scripted_controller import ScriptedController
from tests.kit.small_disk import small_disk
from tests.kit.until import until

TOKEN = b"correct horse/battery+staple=="
KEY = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\n-----END KEY-----\n\0\xff"
SECRETS = {"lab-token": TOKEN, "lab-key": KEY}
USES = (SecretUse("LAB_TOKEN", "lab-token"), SecretUse("LAB_KEY", "lab-key", SecretForm.FILE))


LEVELS = ("none", "user", "confined")
FORMS = (
    TOKEN,
    TOKEN[:9],
    TOKEN.hex().encode(),
    base64.b64encode(TOKEN)[:30],
    base64.b64encode(b"user:" + TOKEN)[8:40],
    b"MIIEvQIBADANBgkqhkiG9w0BAQEF",
)
"""What would give a secret away."""


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """A server of buckets."""
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that keeps what it was told."""
    running = Mosquitto(tmp_path / "mosquitto")
    running.start()
    try:
        yield running
    finally:
        running.stop()


@contextlib.asynccontextmanager
async def board_at(level: str) -> AsyncIterator[Board]:
    """A board whose agent has its session, and runs jobs at a level."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--sandbox", level) as agent,
    ):
        found = Board(objects, controller, agent)
        await found.connected()
        yield found


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    """A board whose jobs may touch the files of the test."""
    async with board_at("none") as found:
        yield found


def only_root(level: str) -> None:
    """Skip a test of a level that needs users for jobs, where there are none."""
    if level != "none" and os.geteuid() != 0:
        pytest.skip("only root lets jobs have users")


def job(script: str, name: str = "a") -> Job:
    """A job of the system's interpreter with both secrets."""
    return Job(
        name,
        ("python", "-c", script),
        environment=Environment("system"),
        secrets=USES,
    )


def in_memory(board: Board) -> list[Path]:
    """Everything that is in memory for this agent."""
    name = SecretFolders(board.agent.state)._name
    return [found for base in BASES for found in (base / name).rglob("*")]


def holding(folder: Path, value: bytes) -> list[Path]:
    """The files below a folder in which a value stands, plain or in base64."""
    forms = (value, base64.b64encode(value)[:-4], value.hex().encode())
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and any(f in path.read_bytes() for f in forms)
    ]


TELLS = """
import base64, hashlib, os, pathlib, sys
token = os.environ["LAB_TOKEN"]
key = pathlib.Path(os.environ["LAB_KEY"])
assert hashlib.sha256(key.read_bytes()).hexdigest() == %r, "the file"
assert key.stat().st_mode & 0o777 == 0o400
for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        assert token.encode() not in process.read_bytes(), "a command line"
    except OSError:
        pass  # it has ended
print("x" * 65530 + token)
print(base64.b64encode(b"user:" + token.encode()).decode())
print(dict(os.environ), key.read_bytes())
sys.stdout.flush()
os.write(1, token[:9].encode())
raise SystemExit("login with " + token + " was refused")
"""


@pytest.mark.parametrize("level", LEVELS)
async def test_a_secret_is_in_nothing_that_a_job_printed_and_in_no_reason(level: str) -> None:
    """Variable and file; traceback and environment; live logs, the archive, the reason, and the board's disk."""
    only_root(level)
    async with board_at(level) as board:
        await _tells(board)


async def _tells(board: Board) -> None:
    ref = board.run(job(TELLS % hashlib.sha256(KEY).hexdigest()), secrets=SECRETS)
    assert await board.end(ref) is JobState.FAILED
    code, _, words = board.controller.reason(ref)
    assert code == "EXIT", words
    assert "login with *" in words
    await until(lambda: f"{ref.prefix}/out/stdout" in board.objects.objects, 30, "its log")
    said = [
        words.encode(),
        bytes(board.controller.logs[ref.name, 1]),
        bytes(board.controller.logs[ref.name, 2]),
        board.artifact(ref, "stdout"),
        board.artifact(ref, "stderr"),
        board.agent.log().encode(),
    ]
    for text in said:
        assert not [form for form in FORMS if form in text]
    assert said[1] == said[3]
    assert said[2] == said[4]
    assert b"x" * 65530 + b"*" * len(TOKEN) in said[1]
    assert holding(board.agent.state, TOKEN) == []
    assert holding(board.agent.state, KEY[:48]) == []
    assert not [path for path in in_memory(board) if path.is_file()]


WAITS = """
import os, pathlib
pathlib.Path({began!r}).with_name("pid").write_text(str(os.getpid()))
pathlib.Path({began!r}).open("a").write(os.environ["LAB_TOKEN"] + " " + os.environ["LAB_KEY"] + "\\n")
pathlib.Path({gate!r}).read_bytes()
print(pathlib.Path(os.environ["LAB_KEY"]).read_bytes())
"""


def waits(began: Path, gate: Path) -> Job:
    """A job that writes down what it got, off the board, and waits until the FIFO `gate` is opened for writing."""
    os.mkfifo(gate)
    return job(WAITS.format(began=str(began), gate=str(gate)))


async def reboot(board: Board) -> None:
    """End everything as a loss of power does, memory included, and start it without network."""
    pids = board.agent.processes()
    board.agent.kill()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await until(lambda pid=pid: ended(pid), 20, "the end of a process")  # type: ignore[misc]
    with closing(sqlite3.connect(board.agent.state / "agent.db")) as journal, journal:
        journal.execute("UPDATE fact SET value = 'another' WHERE name = 'boot_id'")
    SecretFolders(board.agent.state).sweep(())
    await board.controller.stop()
    board.objects.away = True
    board.agent.start()


async def test_a_job_with_secrets_starts_after_a_reboot_without_network(
    board: Board, tmp_path: Path
) -> None:
    began, gate = tmp_path / "began", tmp_path / "gate"
    ref = board.run(waits(began, gate), secrets=SECRETS)
    await board.state(ref, JobState.RUNNING)
    await until(lambda: began.exists() and began.read_text().count("\n") == 1, 30, "the program")
    assert holding(board.agent.state, TOKEN) == []
    await reboot(board)
    await until(
        lambda: began.read_text().count("\n") == 2, 60, f"it again\n{board.agent.log()[-3000:]}"
    )
    lines = began.read_text().splitlines()
    assert lines[0] == lines[1]
    assert lines[0].startswith(TOKEN.decode() + " /")
    # Its controller has other values by now, and hides nothing by itself.
    others = {"lab-token": b"another one", "lab-key": b"another key"}
    board.controller.wanted[ref] = replace(board.controller.wanted[ref], secrets=others)
    board.objects.away = False
    await board.controller.start()
    await asyncio.to_thread(gate.write_bytes, b"")
    assert await board.end(ref) is JobState.SUCCEEDED
    assert set(board.artifact(ref, "stdout")) <= set(b"b'\"*\\xfn0-\n ")
    assert holding(board.agent.state, KEY[:48]) == []
    await board.idle()
    assert not [path for path in in_memory(board) if path.is_file()]


PAUSES = """
import os, pathlib, signal, time
key = pathlib.Path(os.environ["LAB_KEY"])
assert key.stat().st_uid == os.getuid()
print(os.getuid(), time.monotonic_ns(), os.environ["LAB_TOKEN"], key.read_bytes(), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("level", LEVELS[1:])
async def test_a_job_of_each_level_has_its_secrets_after_a_reboot_without_network(
    level: str,
) -> None:
    """Its user is another than the agent's, and the file is that user's."""
    only_root(level)
    async with board_at(level) as board:
        ref = board.run(job(PAUSES), secrets=SECRETS)

        def printed_there() -> bytes:
            folders = board.agent.state.glob("attempts/*/stdout")
            return b"".join(path.read_bytes() for path in folders)

        await until(lambda: KEY[:9] in printed_there(), 30, board.agent.log()[-3000:])
        said = printed_there()
        assert TOKEN in said
        assert int(said.split()[0]) != os.getuid()
        await reboot(board)

        def again() -> bool:
            found = printed_there()
            return KEY[:9] in found and found.split()[1] != said.split()[1]

        await until(again, 60, board.agent.log()[-3000:])
        assert printed_there().split()[2:] == said.split()[2:]
        board.objects.away = False
        await board.controller.start()
        board.controller.stop_attempt(ref)
        assert await board.end(ref) is JobState.CANCELLED
        await board.idle()
        assert holding(board.agent.state, TOKEN) == []
        assert not [path for path in in_memory(board) if path.is_file()]


async def test_files_are_there_while_the_program_runs_and_gone_with_it_whatever_ends_it(
    board: Board, tmp_path: Path
) -> None:
    began, gate = tmp_path / "began", tmp_path / "gate"
    ref = board.run(waits(began, gate), secrets=SECRETS)
    await until(lambda: began.exists() and began.read_text(), 30, "the program")
    (found,) = [path for path in in_memory(board) if path.is_file()]
    assert found.read_bytes() == KEY
    # An agent that dies leaves it to the program, and one that finds the program over takes it away.
    board.agent.kill()
    board.agent.start()
    await board.connected(2)
    assert found.read_bytes() == KEY
    board.agent.kill()
    await asyncio.to_thread(gate.write_bytes, b"")
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: ended(pid), 20, "the end of the program")
    assert found.exists()
    board.agent.start()
    assert await board.end(ref) is JobState.SUCCEEDED
    assert not found.exists()


async def test_a_job_that_crashes_leaves_no_core_file(board: Board) -> None:
    """Neither on the board nor in the archive, whatever the system does with cores."""
    crash = "import os, signal; print(os.environ, flush=True); os.kill(os.getpid(), signal.SIGABRT)"
    ref = board.run(
        replace(job(crash), archive=("**",), archive_on=ArchiveOn.ALWAYS), secrets=SECRETS
    )
    assert await board.end(ref) is JobState.FAILED
    assert board.controller.reason(ref)[:2] == ("SIGNAL", signal.SIGABRT)
    await until(lambda: f"{ref.prefix}/out/stdout" in board.objects.objects, 30, "its log")
    await board.idle()
    assert sorted(board.objects.objects) == [f"{ref.prefix}/out/stdout"]
    for path in board.agent.state.rglob("*"):
        assert "core" not in path.name.split("."), path
    assert holding(board.agent.state, TOKEN) == []
    assert not [path for path in in_memory(board) if path.is_file()]


async def test_a_secret_that_cannot_be_opened_any_more_costs_the_attempt_and_hides_its_log(
    board: Board, tmp_path: Path
) -> None:
    began, gate = tmp_path / "began", tmp_path / "gate"
    ref = board.run(waits(began, gate), secrets=SECRETS)
    await until(lambda: began.exists() and began.read_text(), 30, "the program")
    key = board.agent.state / "secrets.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    board.controller.wanted[ref] = replace(board.controller.wanted[ref], secrets={})
    await reboot(board)
    board.objects.away = False
    await board.controller.start()
    assert await board.end(ref) is JobState.FAILED
    assert board.controller.reason(ref)[0] == "START"
    assert "secrets cannot be opened" in board.agent.log()


PIPELINE = """
name: keeps-quiet
bundle: .
jobs:
  tells:
    run: [python, main.py]
    environment: {python: system}
    secrets: {LAB_TOKEN: lab-token, LAB_KEY: {name: lab-key, as: file}}
"""


async def test_no_part_of_a_cluster_keeps_or_tells_a_secret(
    tmp_path: Path, ministack: Ministack, broker: Mosquitto
) -> None:
    """State folders of controller and agent, objects of S3, messages of MQTT, views, events, logs, command lines."""
    script = TELLS % hashlib.sha256(KEY).hexdigest() + "\n"
    async with (
        running_edge(tmp_path / "edge", ministack, broker, agents=1, insecure=False) as edge,
        edge.subscribed("#") as told,
    ):
        client = edge.client
        for name, value in SECRETS.items():
            await client.set_secret(name, value)
        submitted = await submit(client, tmp_path / "spec", PIPELINE, {"main.py": script})
        name = submitted.pipeline.id
        ended = await client.when(name, lambda seen: seen.state.terminal)
        assert ended.state is PipelineState.FAILED
        [job_view] = ended.jobs
        assert "login with *" in job_view.reason.message
        stdout = (await printed(client, name)).encode()
        assert b"x" * 65530 + b"*" * len(TOKEN) in stdout
        await until(lambda: told, 30, "an event")

        def archived() -> Awaitable[dict[str, bytes]]:
            return edge.objects(bucket=edge.archive)

        async def kept() -> bool:
            return any(key.endswith("stdout") for key in await archived())

        await until(kept, 60, "its log in the archive")
        objects = await archived()
        events = await all_events(client)
        said = {
            "views": repr(ended).encode(),
            "specification": repr(await client.get(name)).encode(),
            "events": repr(events).encode(),
            "logs": stdout,
            **{f"object {key}": data for key, data in objects.items()},
            **{f"topic {one.topic}": bytes(one.payload) for one in told},
        }
        for where, text in said.items():
            for form in FORMS:
                assert form not in text, where
        # While all of it runs, with what is not yet in the databases but in their logs.
        for value in (TOKEN, KEY[20:48]):
            assert holding(tmp_path / "edge", value) == []
            assert holding(tmp_path / "mosquitto", value) == []


async def test_the_folder_of_a_job_that_was_ended_is_kept_without_secrets(
    board: Board, tmp_path: Path
) -> None:
    """Nothing of it is archived, since the controller wants the attempt no more."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    prints = "import os, pathlib; print(os.environ, flush=True); os.write(2, b'x' + os.environb[b'LAB_TOKEN']);"
    ref = board.run(job(f"{prints} pathlib.Path({str(gate)!r}).read_bytes()"), secrets=SECRETS)
    await until(
        lambda: b"*" * len(TOKEN) in board.controller.logs.get((ref.name, 2), b""), 30, "it"
    )
    board.controller.remove(ref)
    await board.idle()
    [kept] = (board.agent.state / "kept").iterdir()
    assert (kept / "stderr").read_bytes() == b"x" + b"*" * len(TOKEN)
    assert holding(board.agent.state, TOKEN) == []


def test_without_room_for_another_log_nothing_of_it_is_shown_or_lost(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        path = disk.path / "stdout"
        path.write_bytes(TOKEN + b"x" * 1_000_000)
        (disk.path / "work").mkdir()
        disk.fill()
        ref = AttemptRef("default", "p", "a", 1, 1)
        steps = collect(disk.path / "work", (), disk.path, ref, mask=SecretMask([TOKEN]))
        found = done_at_once(steps)
        assert found.artifacts == ()
        assert "may hold secrets, which cannot be hidden: No space left" in found.problem
        assert path.stat().st_size == len(TOKEN) + 1_000_000
        assert sorted(os.listdir(disk.path)) == ["filler", "stdout", "work"]
        disk.empty()
        steps = collect(disk.path / "work", (), disk.path, ref, mask=SecretMask([TOKEN]))
        found = done_at_once(steps)
        assert [one.path for one in found.artifacts] == ["stdout"]
        assert path.read_bytes() == b"*" * len(TOKEN) + b"x" * 1_000_000
