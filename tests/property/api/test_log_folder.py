"""Whatever is sent twice, early or late: a log is a beginning of what was printed."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from control.front.log_folder import LogFolder
from shoal.names import AttemptRef, PipelineRef
from shoal.session.log_piece import LogPiece
from shoal.view import LogStream

REF = AttemptRef("default", "p-1", "a", 1, 1)
PRINTED = bytes(range(200))
SPANS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=20)


@settings(max_examples=100, deadline=None)
@given(spans=SPANS)
def test_a_log_is_a_beginning_of_what_was_printed(spans: list[tuple[int, int]]) -> None:
    asyncio.run(compare(spans))


async def compare(spans: list[tuple[int, int]]) -> None:
    known = 0
    with tempfile.TemporaryDirectory() as folder:
        logs = LogFolder(Path(folder) / "logs", clock=lambda: 0.0)
        for first, last in spans:
            piece = LogPiece(REF, LogStream.STDOUT, first, PRINTED[first:last])
            await logs.append([piece])
            if first <= known:
                known = max(known, last)
            assert logs.size(REF, LogStream.STDOUT) == known
            assert await logs.read(REF, LogStream.STDOUT, 0) == PRINTED[:known]
        assert logs.size(REF, LogStream.STDERR) == 0


def test_logs_of_forgotten_pipelines_go(tmp_path: Path) -> None:
    async def main() -> None:
        logs = LogFolder(tmp_path, clock=lambda: 0.0)
        other = AttemptRef("default", "p-2", "a", 1, 1)
        for ref in (REF, other):
            await logs.append([LogPiece(ref, LogStream.STDERR, 0, b"x")])
        assert await logs.keep_only(lambda ref: ref == PipelineRef("default", "p-2")) == 1
        assert logs.size(REF, LogStream.STDERR) == 0
        assert logs.size(other, LogStream.STDERR) == 1

    asyncio.run(main())
