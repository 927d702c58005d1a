"""Jobs beside the client (F13): terminal to cluster to CSV, and what dies in between."""

import asyncio
import contextlib
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.model import PipelineState
from shoal.view import PipelineView
from tests.kit.cluster import contents, describe, job_of, running_cluster, when
from tests.kit.tree import ROOT
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_DEADLINE = 60.0
SHOAL = str(Path(sys.executable).parent / "shoal")

UPPER = """
from shoal import job

@job.main
def upper(line):
    return {"name": line.upper(), "value": len(line)}
"""
CHAT = """
name: chat
bundle: .
jobs:
  me:
    local: true
    run: cat
    outputs: {line: {format: lines, as: stdout}}
  upper:
    run: python upper.py
    recovery: resume
    resources: {cpus: 0.25}
    inputs: {line: me.line}
    outputs: [rows]
  table:
    local: true
    run: python -m shoal.job.csv_sink --columns 'sequence,{name},length={value}'
    inputs: {rows: upper.rows}
"""
LARGE_FILES = {
    "source.py": (
        "from shoal import job\n"
        "@job.source\n"
        "def source():\n"
        "    for k in range(4):\n"
        "        yield bytes([k]) * (3_000_000 + k)\n"
    ),
    "turn.py": "from shoal import job\n@job.main\ndef turn(x):\n    return x[::-1]\n",
    "sink.py": (
        "from shoal import job\n@job.main\ndef sink(y):\n    print(len(y), y[0], flush=True)\n"
    ),
    "pipeline.yaml": (
        "name: large\n"
        "bundle: .\n"
        "jobs:\n"
        "  source: {local: true, run: python source.py, outputs: [x]}\n"
        "  turn: {run: python turn.py, inputs: {x: source.x}, outputs: [y]}\n"
        "  sink: {local: true, run: python sink.py, inputs: {y: turn.y}}\n"
    ),
}
BY_HAND = """
name: hand
bundle: .
jobs:
  me:
    local: true
    outputs: {said: {format: lines}}
  sink:
    run: sh -c 'cat > results/all'
    resources: {cpus: 0.25}
    inputs: {said: {from: me.said, format: lines, as: stdin}}
"""


AS_WRITTEN = r"""
name: as-written
jobs:
  words:
    run: [sh, -c, "printf '3.10\\n1e3\\nnull\\n\"x\"\\n'"]
    resources: {cpus: 0.25}
    outputs: {words: {format: lines, as: stdout}}
  table:
    local: true
    run: python -m shoal.job.csv_sink --columns record --no-header
    inputs: {rows: words.words}
"""
TWO_READERS = """
name: two-readers
jobs:
  clock: {local: true, run: cat, outputs: {ticks: {format: lines, as: stdout}}}
  me: {local: true, run: cat, TERMINAL outputs: {said: {format: lines, as: stdout}}}
  sink:
    run: [sh, -c, "cat > results/said; cat <&{inputs.ticks.fd} > results/ticks"]
    resources: {cpus: 0.25}
    inputs: {said: {from: me.said, format: lines, as: stdin}, ticks: {from: clock.ticks, format: lines}}
"""


SEEN: set[str] = set()


class Command:
    """A `shoal` command of a user with a home of its own."""

    def __init__(self, home: Path, controller: str) -> None:
        self.home = home
        self.controller = controller
        self._running: list[asyncio.subprocess.Process] = []

    async def start(self, *words: str, folder: Path | None = None) -> asyncio.subprocess.Process:
        """Start it with pipes."""
        process = await asyncio.create_subprocess_exec(
            *(SHOAL, *words, "--controller", self.controller),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder or self.home,
            env={**os.environ, "XDG_STATE_HOME": str(self.home)},
        )
        self._running.append(process)
        return process

    async def run(self, *words: str, text: str = "", folder: Path | None = None) -> str:
        """Run it to its end with status 0, and return what it wrote to stderr."""
        process = await self.start(*words, folder=folder)
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        said: list[str] = []
        try:
            async with asyncio.timeout(_DEADLINE):
                async for line in process.stderr:
                    said.append(line.decode())  # noqa: PERF401 - kept when the deadline passes
                await process.wait()
        except TimeoutError:
            raise AssertionError(f"{words} runs after {_DEADLINE} s; it said {said}") from None
        assert process.returncode == 0, "".join(said)
        return "".join(said)

    async def close(self) -> None:
        """Kill what is left."""
        for process in self._running:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def boards(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """Four boards, of which two tests kill one each."""
    async with running_cluster(tmp_path_factory.mktemp("cluster"), agents=4) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(
    boards: tuple[LocalCluster, Client], tmp_path: Path
) -> AsyncIterator[tuple[LocalCluster, Client, Command]]:
    """The boards, and a user."""
    running, client = boards
    home = tmp_path / "home"
    home.mkdir()
    command = Command(home, running.controller_address)
    try:
        yield running, client, command
    finally:
        await command.close()


def written(folder: Path, spec: str) -> Path:
    """A folder with a specification and its code."""
    folder.mkdir()
    (folder / "upper.py").write_text(UPPER)
    path = folder / "pipeline.yaml"
    path.write_text(spec)
    return path


def rows(lines: Sequence[str]) -> str:
    """The table that the sink makes of lines."""
    body = "".join(f"{k},{line.upper()},{len(line)}\r\n" for k, line in enumerate(lines))
    return "sequence,name,length\r\n" + body


async def the_pipeline(client: Client, name: str = "chat") -> PipelineView:
    """The latest pipeline of a name that was not seen before, once it is there."""

    async def found() -> PipelineView | None:
        async for view in client.list():
            if view.spec.name == name and view.id not in SEEN:
                SEEN.add(view.id)
                return view
        return None

    view = await until(found, 20, "the pipeline is submitted")
    assert view is not None
    return view


async def test_f13_a_terminal_feeds_a_cluster_and_a_csv_file_beside_it_fills(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """`shoal run` with a source and a sink that run beside it."""
    _, client, command = cluster
    spec = written(tmp_path / "chat", CHAT)
    lines = [f"line number {k}" for k in range(50)]
    await command.run("run", str(spec), text="\n".join(lines) + "\n")
    view = await the_pipeline(client)
    assert view.state is PipelineState.SUCCEEDED, describe(view)
    table = (command.home / "results" / "table" / "rows.csv").read_bytes().decode()
    assert table == rows(lines)
    assert not list((command.home / "shoal").rglob("*.records"))


async def test_b15_no_line_breaks_into_the_prompt_of_the_example(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """On a real terminal: between the first prompt and Ctrl-D there is what is typed and nothing else."""
    _, _, command = cluster
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(SHOAL, "run", str(ROOT / "examples" / "prompt"), "--controller", command.controller),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=command.home,
        env={**os.environ, "XDG_STATE_HOME": str(command.home)},
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    said = bytearray()
    table = command.home / "results" / "table" / "lines.csv"

    def shows(words: bytes) -> bool:
        with contextlib.suppress(OSError):  # nothing yet, or the other end is closed
            said.extend(os.read(ours, 4096))
        return words in said

    try:
        await until(lambda: shows(b"> "), 30, "the prompt")
        os.write(ours, b"one\n")
        await until(lambda: table.exists() and b"one" in table.read_bytes(), 30, "a row")
        os.write(ours, b"two\n\x04")
        await until(lambda: shows(b" succeeded, event"), 30, "the end")
        assert await process.wait() == 0
    finally:
        os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
    told = said.decode().replace("\r\n", "\n")
    before, typed, after = re.fullmatch("(?s)(.*?)(> one\n> two\n> )(.*)", told).groups()  # type: ignore[union-attr]
    assert "prompt reads this terminal" in before, told
    assert ": running" not in before + typed
    assert "local results are in results/table" in after.replace(f"{command.home}/", ""), told


async def test_f13_a_killed_run_goes_on_with_the_same_request(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """Kill -9 of `shoal run`: the next one takes the local jobs over, and no record is twice."""
    _, client, command = cluster
    spec = written(tmp_path / "chat", CHAT)
    lines = [f"line number {k}" for k in range(20)]
    table = command.home / "results" / "table" / "rows.csv"
    words = ("run", "--request-id", "the same", str(spec))
    process = await command.start(*words)
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines[:10]).encode())
    await process.stdin.drain()
    await until(lambda: table.exists() and table.read_bytes().count(b"\n") == 11, 30, "ten rows")
    view = await the_pipeline(client)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await command.run(*words, text="".join(f"{line}\n" for line in lines))
    ended = await client.get(view.id)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert table.read_bytes().decode() == rows(lines)


async def test_f13_boards_and_controller_die_while_local_jobs_go_on(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """Each portal's board is killed in the middle, and the controller: nothing is lost or doubled."""
    running, client, command = cluster
    spec = written(tmp_path / "chat", CHAT)
    process = await command.start("run", str(spec))
    assert process.stdin is not None
    table = command.home / "results" / "table" / "rows.csv"
    lines = [f"line number {k}" for k in range(30)]

    async def say(part: Sequence[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("".join(f"{line}\n" for line in part).encode())
        await process.stdin.drain()

    def arrived() -> int:
        return table.read_bytes().count(b"\n") - 1 if table.exists() else 0

    await say(lines[:10])
    await until(lambda: arrived() == 10, 30, "ten rows")
    view = await the_pipeline(client)
    victim = job_of(view, "me").node
    await running.kill_board(victim)
    await say(lines[10:15])
    await until(lambda: arrived() == 15, 30, "fifteen rows")
    await running.controller.kill()
    await running.controller.start()
    await say(lines[15:20])
    await until(lambda: arrived() == 20, 60, "twenty rows")
    await say(lines[20:])
    process.stdin.close()
    async with asyncio.timeout(_DEADLINE):
        out, err = await process.communicate()
    assert process.returncode == 0, (out, err.decode())
    assert table.read_bytes().decode() == rows(lines)
    view = await client.get(view.id)
    assert view.state is PipelineState.SUCCEEDED, describe(view)
    moved = [job.id for job in view.jobs if job.attempts[0].node == victim]
    assert "me" in moved
    assert all(len(job_of(view, job).attempts) > 1 for job in moved)


async def test_f13_records_are_sent_by_hand_and_a_killed_client_goes_on(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """`shoal send` in parts; the command is killed in one of them, and the board that had it all."""
    running, client, command = cluster
    spec = written(tmp_path / "hand", BY_HAND)
    said = await command.run("run", "--detach", str(spec))
    view = await the_pipeline(client, "hand")
    assert f"shoal send {view.id} me.said" in said
    port = ("send", view.id, "me.said")
    await command.run(*port, "--keep-open", "one", "two")

    process = await command.start(*port)
    assert process.stdin is not None
    process.stdin.write(b"three\nfour\n")
    await process.stdin.drain()

    async def passed() -> bool:
        streams = job_of(await client.get(view.id), "sink").streams
        return any(stream.records == 4 for stream in streams)

    await until(passed, 30, "four records at the sink")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    now = await client.get(view.id)
    await running.kill_board(job_of(now, "me").node)
    try:
        await command.run(*port, text="five\nsix\n")
    except AssertionError as error:
        error.add_note(describe(await client.get(view.id)))
        raise
    ended = await client.wait(view.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    [artifact] = [
        artifact
        for job in ended.jobs
        if job.manifest
        for artifact in job.manifest.artifacts
        if artifact.path == "results/all"
    ]
    await client.fetch(artifact, tmp_path / "all")
    assert (tmp_path / "all").read_text() == "one\ntwo\nthree\nfour\nfive\nsix\n"


async def test_f13_large_records_pass_between_local_jobs_and_boards(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """Three MB a record, in parts over the controller, both ways."""
    _, _, command = cluster
    folder = tmp_path / "large"
    folder.mkdir()
    for name, code in LARGE_FILES.items():
        (folder / name).write_text(code)
    process = await command.start("run", str(folder / "pipeline.yaml"))
    async with asyncio.timeout(_DEADLINE):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    shown = [line for line in out.decode().splitlines() if line[:1].isdigit()]
    assert shown == [f"{3_000_000 + k} {k}" for k in range(4)]


async def test_f13_a_local_job_that_fails_ends_the_pipeline_and_the_command_with_it(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """Exit status 1, and the reason names the job; a command that does not stay is refused."""
    _, client, command = cluster
    spec = written(tmp_path / "chat", CHAT.replace("run: cat", "run: sh -c 'echo x; exit 3'"))
    process = await command.start("run", str(spec))
    async with asyncio.timeout(_DEADLINE):
        _, err = await process.communicate()
    assert process.returncode == 1, err.decode()
    assert "the local job me ended with status 3" in err.decode()
    view = await the_pipeline(client)
    ended = await client.wait(view.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.CANCELLED
    for words in (("run", "--detach"), ("submit",)):
        process = await command.start(*words, str(spec))
        _, err = await process.communicate()
        assert process.returncode == 1
        assert "me, table" in err.decode()


async def test_f13_ctrl_c_cancels_a_pipeline_whose_jobs_are_local(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """They cannot go on without the command, so nothing is left behind."""
    _, client, command = cluster
    spec = written(tmp_path / "chat", CHAT)
    process = await command.start("run", str(spec))
    view = await the_pipeline(client)
    await when(client, view.id, lambda now: all(job.node for job in now.jobs))
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(_DEADLINE):
        await process.communicate()
    assert process.returncode in {1, 130}
    ended = await client.wait(view.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.CANCELLED, describe(ended)


async def test_k14_a_table_has_the_text_that_a_program_wrote(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """`3.10` is not 3.1, and `null` is a word."""
    _, _, command = cluster
    await command.run("run", str(written(tmp_path / "as-written", AS_WRITTEN)))
    table = command.home / "results" / "table" / "rows.csv"
    assert table.read_bytes() == b'3.10\r\n1e3\r\nnull\r\n"""x"""\r\n'


async def test_x3_of_two_local_jobs_the_one_that_says_so_reads_the_terminal(
    cluster: tuple[LocalCluster, Client, Command], tmp_path: Path
) -> None:
    """Without a word in the specification none does, and `shoal run` tells."""
    _, client, command = cluster
    lines = "".join(f"{k}\n" for k in range(10))
    unsaid = written(tmp_path / "unsaid", TWO_READERS.replace("TERMINAL ", ""))
    told = await command.run("run", str(unsaid), text=lines)
    assert "none of clock, me gets the standard input" in told
    assert "`stdin: terminal`" in told
    said = written(tmp_path / "said", TWO_READERS.replace("TERMINAL", "stdin: terminal,"))
    told = await command.run("run", str(said), text=lines)
    assert "standard input" not in told
    view = await the_pipeline(client, "two-readers")
    assert await contents(client, view, "results/said", tmp_path / "got") == lines.encode()
