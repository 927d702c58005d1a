"""Case F19: `shoal logs -f` on a terminal, while a board dies."""

import asyncio
import os
import pty
import re
import sys
from pathlib import Path

from shoal.model import JobState, PipelineState
from tests.kit.cluster import describe, job_of, running_cluster, submit, when
from tests.kit.until import until

_SPEC = """
    name: chat
    jobs:
      talker:
        run: [sh, -c, 'echo "begin $SHOAL_ATTEMPT"; test -e {gate}.open || cat {gate}; echo end']
      writer:
        run: [sh, -c, "echo written; echo wrong >&2"]
"""
_CLOCK = """
    name: clock
    jobs:
      clock:
        run: [sh, -c, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do date +%s.%N; sleep 1; done"]
"""
_LINE = re.compile(r"\x1b\[(\d+)m(\S+) \| \x1b\[0m(.*?)\r?\n")


async def test_all_jobs_are_followed_in_their_colours_across_a_failover(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with running_cluster(tmp_path / "cluster", agents=2) as (boards, client):
        submitted = await submit(client, tmp_path / "spec", _SPEC.format(gate=gate), {})
        name = submitted.pipeline.id
        said = bytearray()
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shoal.cli", "logs", "-f", name),
            *("--controller", boards.controller_address),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        reading = asyncio.create_task(asyncio.to_thread(_read, ours, said))
        await until(lambda: b"begin 1" in said, 60, "the first attempt's words")
        running = await when(
            client, name, lambda now: job_of(now, "talker").state is JobState.RUNNING
        )
        await boards.kill_board(job_of(running, "talker").node)
        await until(lambda: b"begin 2" in said, 60, "the second attempt's words")
        gate.with_name("gate.open").touch()
        os.close(os.open(gate, os.O_RDWR | os.O_NONBLOCK))
        ended = await client.wait(name, deadline_seconds=60)
        assert await asyncio.wait_for(process.wait(), 60) == 0, describe(ended)
        await reading
        os.close(ours)
    lines = {(job, text): colour for colour, job, text in _LINE.findall(said.decode())}
    assert set(lines) == {
        ("talker", "begin 1"),
        ("talker#2", "begin 2"),
        ("talker#2", "end"),
        ("writer", "written"),
        ("writer", "wrong"),
    }
    talker, writer = lines["talker", "begin 1"], lines["writer", "written"]
    assert talker != writer
    assert lines["talker#2", "end"] == talker
    assert lines["writer", "wrong"] == writer


async def test_lines_keep_their_times_while_the_controller_is_away(tmp_path: Path) -> None:
    """Each line says by itself when it was printed, by the clock of the board."""
    async with running_cluster(tmp_path / "cluster", agents=1) as (boards, client):
        submitted = await submit(client, tmp_path / "spec", _CLOCK, {})
        name = submitted.pipeline.name
        await when(client, name, lambda now: job_of(now, "clock").state is JobState.RUNNING)
        await boards.controller.kill()
        kept = list((tmp_path / "cluster").rglob("attempts/*/stdout"))
        await until(lambda: any(b"." in one.read_bytes() for one in kept), 10, "a first line")
        await until(
            lambda: max(one.read_bytes().count(b"\n") for one in kept) >= 10, 60, "ten lines"
        )
        await boards.controller.start()
        ended = await client.wait(name, deadline_seconds=60)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        late: list[float] = []
        async for chunk in client.logs(name, times=True):
            assert chunk.print_time is not None
            late += [chunk.print_time.timestamp() - float(one) for one in chunk.data.split()]
    assert len(late) == 12
    assert all(-0.1 < seconds < 4 for seconds in late), late


def _read(terminal: int, said: bytearray) -> None:
    """Read until nobody writes to the terminal any more."""
    try:
        while data := os.read(terminal, 4096):
            said += data
    except OSError:  # EIO: the other end is closed
        return
