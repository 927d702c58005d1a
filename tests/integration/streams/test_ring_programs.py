"""Programs of the SDK on one node: large records lie in shared memory, and nobody sees them change."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from tests.kit.board import Board, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output
from tests.kit.until import until

SOURCE = """
import sys
import numpy
from shoal import job

@job.source
def source():
    for k in range(int(sys.argv[1])):
        yield numpy.full((int(sys.argv[2]), 1024), k, "<i4")
    with open("/proc/self/smaps") as maps:
        lines = iter(maps)
        for line in lines:
            if "memfd:shoal.out" in line:
                print(next(part for part in lines if part.startswith("Rss:")).split()[1])
"""

SINK = """
import json, sys
import numpy
from shoal import job

@job.stream
def sink():
    kept, seen, mapped, wrong = [], 0, 0, 0
    every, add = int(sys.argv[1]), int(sys.argv[2])
    for frame in job.inputs["in"]:
        wrong += int(not (frame == seen).all())
        frame += add
        if seen % every == 0:
            kept.append((seen, frame))
        seen += 1
        print("progress", seen, file=sys.stderr)
    with open("/proc/self/maps") as maps:
        mapped = maps.read().count("memfd:shoal.out")
    wrong += sum(int(not (frame == number + add).all()) for number, frame in kept)
    print(json.dumps({"seen": seen, "wrong": wrong, "kept": len(kept), "mapped": mapped}))
"""


def program(folder: Path, name: str, text: str, *arguments: object) -> list[str]:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text)
    return [sys.executable, str(path), *map(str, arguments)]


def source(sinks: Sequence[str], epoch: int = 1) -> session.Assignment:
    return assignment(
        "source",
        epoch=epoch,
        outputs=[stream_output("out")],
        lanes=[lane("source.out", f"{name}.in", output=True, epoch=1) for name in sinks],
        replacement=epoch > 1,
    )


def sink(name: str, address: str, epoch: int = 1) -> session.Assignment:
    return assignment(
        name,
        epoch=epoch,
        inputs=[stream_input("in", "source", "out")],
        lanes=[lane("source.out", f"{name}.in", output=False, address=address, epoch=1)],
        recovery=spec.RECOVERY_RESUME,
        replacement=epoch > 1,
    )


def told(board: Board, name: str, epoch: int = 1) -> dict[str, int]:
    folder = board.folder / f"{name}.{epoch}"
    printed = (folder / "stdout").read_text()
    assert printed, (folder / "stderr").read_text()[-2000:]
    return dict(json.loads(printed.splitlines()[-1]))


def progress(board: Board, name: str, epoch: int = 1) -> int:
    return (board.folder / f"{name}.{epoch}" / "stderr").read_text().count("\n")


async def test_p7_arrays_that_a_job_keeps_and_changes_are_its_own(tmp_path: Path) -> None:
    async with boards(tmp_path, 1) as (board,):
        producer = source(["one", "two"])
        one, two = sink("one", board.address), sink("two", board.address)
        code = tmp_path / "code"
        await board.run(one, program(code, "sink", SINK, 10, 7))
        await board.run(two, program(code, "sink", SINK, 1000, 0))
        await board.run(producer, program(code, "source", SOURCE, 60, 1024))
        assert await board.conclude(producer.ref)
        assert await board.conclude(one.ref)
        assert await board.conclude(two.ref)
        assert told(board, "one") == {"seen": 60, "wrong": 0, "kept": 6, "mapped": 1}
        assert told(board, "two") == {"seen": 60, "wrong": 0, "kept": 1, "mapped": 1}
        touched_kib = int(board.printed("source").split()[0])
        assert touched_kib < 80 * 1024, "240 MiB have passed"


@pytest.mark.parametrize("every", [1, 3])
async def test_a_job_that_keeps_more_than_the_ring_holds_loses_nothing(
    tmp_path: Path, every: int
) -> None:
    async with boards(tmp_path, 1, arguments=["--ring-bytes", str(8 << 20)]) as (board,):
        producer, consumer = source(["one"]), sink("one", board.address)
        code = tmp_path / "code"
        await board.run(consumer, program(code, "sink", SINK, every, 1))
        await board.run(producer, program(code, "source", SOURCE, 40, 256))
        assert await board.conclude(producer.ref)
        assert await board.conclude(consumer.ref)
        retained = len(range(0, 40, every))
        assert told(board, "one") == {"seen": 40, "wrong": 0, "kept": retained, "mapped": 1}


async def test_without_rings_the_same_programs_pass_the_same_records(tmp_path: Path) -> None:
    async with boards(tmp_path, 1, arguments=["--ring-bytes", "0"]) as (board,):
        producer, consumer = source(["one"]), sink("one", board.address)
        code = tmp_path / "code"
        await board.run(consumer, program(code, "sink", SINK, 3, 1))
        await board.run(producer, program(code, "source", SOURCE, 20, 1024))
        assert await board.conclude(producer.ref)
        assert await board.conclude(consumer.ref)
        assert told(board, "one") == {"seen": 20, "wrong": 0, "kept": 7, "mapped": 0}


async def test_a_producer_that_is_killed_takes_no_record_with_it(tmp_path: Path) -> None:
    async with boards(tmp_path, 1) as (board,):
        producer, consumer = source(["one"]), sink("one", board.address)
        code = tmp_path / "code"
        await board.run(consumer, program(code, "sink", SINK, 5, 2))
        pid = await board.run(producer, program(code, "source", SOURCE, 1_000_000, 1024))
        await until(lambda: progress(board, "one") > 30, 20, "some arrays")
        os.kill(pid, signal.SIGKILL)
        assert not await board.conclude(producer.ref)
        seen = progress(board, "one")
        await board.forget(producer.ref)
        again = source(["one"], epoch=2)
        await board.run(again, program(code, "source", SOURCE, seen + 50, 1024))
        moved = lane("source.out", "one.in", output=False, address=board.address, epoch=2)
        await board.update(consumer.ref, [moved])
        assert await board.conclude(again.ref)
        assert await board.conclude(consumer.ref)
        found = told(board, "one")
        assert found["wrong"] == 0
        assert found["seen"] == seen + 50


async def test_a_consumer_that_is_killed_gives_everything_back(tmp_path: Path) -> None:
    async with boards(tmp_path, 1) as (board,):
        producer = source(["one"])
        consumer = sink("one", board.address)
        code = tmp_path / "code"
        # It keeps all, so that the ring is soon full of what it holds.
        pid = await board.run(consumer, program(code, "sink", SINK, 1, 1))
        await board.run(producer, program(code, "source", SOURCE, 120, 1024))
        await until(lambda: progress(board, "one") > 20, 20, "some arrays")
        os.kill(pid, signal.SIGKILL)
        assert not await board.conclude(consumer.ref)
        await board.forget(consumer.ref)
        again = sink("one", board.address, epoch=2)
        text = SINK.replace(
            "        wrong += int(",
            "        seen = seen or job.inputs['in'].first\n        wrong += int(",
            1,
        )
        await board.update(producer.ref, [lane("source.out", "one.in", output=True, epoch=2)])
        await board.run(again, program(code, "again", text, 1000, 1))
        assert await board.conclude(producer.ref)
        assert await board.conclude(again.ref)
        assert told(board, "one", 2)["wrong"] == 0
