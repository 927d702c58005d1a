"""Real keepers, workers and programs: the SDK, shell tools and both in one stream."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from tests.kit.board import Board, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

SOURCE = """
from shoal import job

@job.source
def source():
    for k in range(1, 1001):
        yield k
"""
CUBE = """
from shoal import job

@job.main
def cube(numbers):
    return numbers ** 3
"""
SINK = """
from shoal import job

@job.stream
def sink():
    for group in job.inputs["cubes"]:
        print(sum(group), flush=True)
"""


def program(folder: Path, name: str, text: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text)
    return [sys.executable, str(path)]


async def test_programs_of_the_sdk_pass_records_over_two_boards(tmp_path: Path) -> None:
    async with boards(tmp_path, 2) as (left, right):
        first = assignment(
            "source",
            outputs=[stream_output("out")],
            lanes=[lane("source.out", "cube.numbers", output=True, epoch=1)],
        )
        second = assignment(
            "cube",
            inputs=[stream_input("numbers", "source", "out")],
            outputs=[stream_output("out")],
            lanes=[
                lane("source.out", "cube.numbers", output=False, address=left.address, epoch=1),
                lane("cube.out", "sink.cubes", output=True, epoch=1),
            ],
        )
        third = assignment(
            "sink",
            inputs=[stream_input("cubes", "cube", "out", block_count=5)],
            lanes=[lane("cube.out", "sink.cubes", output=False, address=right.address, epoch=1)],
        )
        code = tmp_path / "code"
        await left.run(first, program(code, "source", SOURCE))
        await right.run(second, program(code, "cube", CUBE))
        await left.run(third, program(code, "sink", SINK))
        assert await left.conclude(first.ref)
        assert await right.conclude(second.ref)
        assert await left.conclude(third.ref)
        sums = [int(line) for line in left.printed("sink").split()]
        assert sums[:5] == [225, 2800, 11375, 29700, 61525]
        assert sums == [sum(k**3 for k in range(at, at + 5)) for at in range(1, 1001, 5)]


async def test_shell_tools_stand_in_one_pipeline(tmp_path: Path) -> None:
    def tool(name: str, *arguments: str) -> list[str]:
        path = shutil.which(name)
        assert path is not None
        return [path, *arguments]

    lines = spec.PORT_FORMAT_LINES

    async with boards(tmp_path, 2) as (left, right):
        names = ["seq", "awk", "sort", "tail"]
        tools = [
            tool("seq", "1", "200000"),
            tool("awk", "{print ($1 * 7919) % 200003}"),
            tool("sort", "-n"),
            tool("tail", "-1"),
        ]
        where = [left, right, left, right]
        made: list[tuple[session.Assignment, Board]] = []
        for index, (name, argv, board) in enumerate(zip(names, tools, where, strict=True)):
            inputs = (
                [stream_input("in", names[index - 1], "out", port_format=lines)] if index else []
            )
            outputs = [stream_output("out", port_format=lines)] if index < 3 else []
            for port in inputs:
                port.stream.binding.attachment = spec.PORT_ATTACHMENT_STDIO
            for out in outputs:
                out.binding.attachment = spec.PORT_ATTACHMENT_STDIO
            ends: list[session.Lane] = []
            if inputs:
                before = where[index - 1].address
                into = f"{names[index - 1]}.out"
                ends.append(lane(into, f"{name}.in", output=False, address=before, epoch=1))
            if outputs:
                ends.append(lane(f"{name}.out", f"{names[index + 1]}.in", output=True, epoch=1))
            one = assignment(name, inputs=inputs, outputs=outputs, lanes=ends)
            made.append((one, board))
            await board.run(one, argv)
        for one, board in made:
            assert await board.conclude(one.ref), one.ref.attempt
        expected = max(k * 7919 % 200003 for k in range(1, 200001))
        assert right.printed("tail") == f"{expected}\n"


async def test_what_a_program_writes_at_once_is_split_in_turn(tmp_path: Path) -> None:
    """It writes before its worker has taken the port over; the split counts from the first line."""
    lines = spec.PORT_FORMAT_LINES

    def stdio(one: session.Assignment) -> session.Assignment:
        for port in one.job.inputs:
            port.stream.binding.attachment = spec.PORT_ATTACHMENT_STDIO
        for out in one.job.outputs:
            out.binding.attachment = spec.PORT_ATTACHMENT_STDIO
        return one

    async with boards(tmp_path, 1) as (board,):
        made = [
            stdio(
                assignment(
                    "seq",
                    outputs=[stream_output("out", port_format=lines)],
                    lanes=[
                        lane(
                            *("seq.out", f"half-{one}.in"),
                            output=True,
                            peer_replica=one,
                            peer_replicas=2,
                        )
                        for one in (0, 1)
                    ],
                )
            )
        ]
        await board.run(made[0], ["/bin/sh", "-c", "echo 1; sleep 0.3; seq 2 40000"])
        for replica in (0, 1):
            one = assignment(
                f"half-{replica}",
                replica=replica,
                replicas=2,
                inputs=[stream_input("in", "seq", "out", port_format=lines)],
                lanes=[
                    lane(
                        *("seq.out", f"half-{replica}.in"),
                        output=False,
                        address=board.address,
                        epoch=1,
                    )
                ],
            )
            made.append(stdio(one))
            await board.run(one, ["/bin/cat"])
        for one in made:
            assert await board.conclude(one.ref), one.ref.attempt
        odd = board.printed("half-0").split()
        assert odd == [str(number) for number in range(1, 40001, 2)]
        even = board.printed("half-1").split()
        assert even == [str(number) for number in range(2, 40001, 2)]
