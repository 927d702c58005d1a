"""Whatever is sent twice, early or late: a log is a beginning of what was printed."""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
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


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.binary(min_size=1, max_size=9), st.none() | st.integers(0, 9)), max_size=9
    )
)
def test_each_byte_has_the_time_of_its_piece(pieces: list[tuple[bytes, int | None]]) -> None:
    """Of a piece that came without a time it is that of the one before."""
    asyncio.run(compare_times(pieces))


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.binary(min_size=1, max_size=9), st.none() | st.integers(0, 9)), max_size=9
    ),
    until=st.integers(0, 10),
)
def test_what_was_printed_before_a_moment_ends_at_the_first_piece_of_then_or_later(
    pieces: list[tuple[bytes, int | None]], until: int
) -> None:
    """It is the same whether times are read as they come or all at the end, and clocks may be set back."""
    asyncio.run(compare_ends(pieces, until))


async def compare_ends(pieces: list[tuple[bytes, int | None]], until: int) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    moment = begin + timedelta(seconds=until)
    with tempfile.TemporaryDirectory() as folder:
        logs = LogFolder(Path(folder), clock=lambda: 0.0)
        followed = logs.times(REF, LogStream.STDOUT, moment)
        offset = 0
        end: int | None = None
        for data, second in pieces:
            time = None if second is None else begin + timedelta(seconds=second)
            await logs.append([LogPiece(REF, LogStream.STDOUT, offset, data, time)])
            if end is None and second is not None and second >= until:
                end = offset
            offset += len(data)
            followed.refresh()
            assert followed.end == end
        anew = logs.times(REF, LogStream.STDOUT, moment)
        anew.refresh()
        assert anew.end == end


async def compare_times(pieces: list[tuple[bytes, int | None]]) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    wanted: list[datetime | None] = []
    printed = b""
    moment: datetime | None = None
    with tempfile.TemporaryDirectory() as folder:
        logs = LogFolder(Path(folder), clock=lambda: 0.0)
        for data, second in pieces:
            time = None if second is None else begin + timedelta(seconds=second)
            await logs.append([LogPiece(REF, LogStream.STDOUT, len(printed), data, time)])
            moment = time or moment
            wanted += [moment] * len(data)
            printed += data
        times = logs.times(REF, LogStream.STDOUT)
        times.refresh()
        for first in range(len(printed)):
            found = list(times.cut(first, printed[first:]))
            assert b"".join(data for _, data, _ in found) == printed[first:]
            assert [one for _, data, one in found for _ in data] == wanted[first:]


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
