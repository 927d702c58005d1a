"""Headers from one job to the next over two boards (F12)."""

import json
import sys
from pathlib import Path

from tests.kit.board import boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

SOURCE = """
from shoal import job

@job.source
def camera():
    for k in range(30):
        if k % 3 == 0:
            job.headers["bits"] = 1 << k
        yield k
"""
MIDDLE = """
from shoal import job

class Mark:
    def run(self, frames):
        job.headers["seen"] = True
        return frames

if __name__ == "__main__":
    job.run(Mark)
"""
SINK = """
import json
from shoal import job

@job.main
def sink(groups):
    print(json.dumps([groups, dict(job.headers)]), flush=True)
"""


async def test_f12_thirty_records_with_headers_pass_two_boards_and_all_end(tmp_path: Path) -> None:
    async with boards(tmp_path, 2) as (left, right):
        camera = assignment(
            "camera",
            outputs=[stream_output("frames")],
            lanes=[lane("camera.frames", "mark.frames", output=True, epoch=1)],
        )
        mark = assignment(
            "mark",
            inputs=[stream_input("frames", "camera", "frames")],
            outputs=[stream_output("out")],
            lanes=[
                lane("camera.frames", "mark.frames", output=False, address=left.address, epoch=1),
                lane("mark.out", "sink.groups", output=True, epoch=1),
            ],
        )
        sink = assignment(
            "sink",
            inputs=[stream_input("groups", "mark", "out", block_count=5)],
            lanes=[lane("mark.out", "sink.groups", output=False, address=right.address, epoch=1)],
        )
        for board, job, text in (
            (left, camera, SOURCE),
            (right, mark, MIDDLE),
            (left, sink, SINK),
        ):
            path = tmp_path / f"{job.ref.attempt.split('/')[3]}.py"
            path.write_text(text)
            await board.run(job, [sys.executable, str(path)])
        assert await left.conclude(camera.ref)
        assert await right.conclude(mark.ref)
        assert await left.conclude(sink.ref)
        came = [json.loads(line) for line in left.printed("sink").splitlines()]
    assert [number for group, _ in came for number in group] == list(range(30))
    assert [headers for _, headers in came] == [
        {"bits": sum(1 << k for k in range(at, at + 5) if k % 3 == 0), "seen": True}
        for at in range(0, 30, 5)
    ]
