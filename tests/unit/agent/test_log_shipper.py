"""Logs are shipped from where the controller has them, bounded in flight."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge_agent.logs import LogShipper, tail
from edge_agent.secrets.secret_mask import SecretMask
from shoal.names import AttemptRef
from shoal.session.log_piece import LogPiece
from shoal.view import LIVE_LOG_BYTES_MAX, LogStream
from tests.kit.until import until

REF = AttemptRef("default", "p", "work", 1, 1)


def printed(path: Path) -> datetime:
    """When a file was written last."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


class Listener:
    """Takes pieces and confirms them when asked to."""

    def __init__(self) -> None:
        self.pieces: list[LogPiece] = []
        self.shipper = LogShipper(self.say)

    async def say(self, piece: LogPiece) -> None:
        self.pieces.append(piece)

    def confirm_all(self) -> None:
        pieces, self.pieces = self.pieces, []
        for piece in pieces:
            self.shipper.confirm(piece)


@asynccontextmanager
async def running(listener: Listener) -> AsyncIterator[None]:
    task = asyncio.create_task(listener.shipper.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_is_not_confirmed_is_sent_again_in_the_next_session(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"hello")
    listener = Listener()
    listener.shipper.follow(REF, tmp_path)
    async with running(listener):
        listener.shipper.session_opened()
        await until(lambda: listener.pieces, 5, "a piece")
        listener.shipper.session_closed()
        listener.pieces.clear()
        listener.shipper.session_opened()
        await until(lambda: listener.pieces, 5, "the piece again")
        first = printed(tmp_path / "stdout")
        assert listener.pieces == [LogPiece(REF, LogStream.STDOUT, 0, b"hello", first)]
        listener.confirm_all()
        with (tmp_path / "stdout").open("ab") as log:
            log.write(b" world")
        await until(lambda: listener.pieces, 5, "the rest")
        rest = printed(tmp_path / "stdout")
        assert listener.pieces == [LogPiece(REF, LogStream.STDOUT, 5, b" world", rest)]


async def test_what_waits_for_a_session_keeps_the_times_at_which_it_was_printed(
    tmp_path: Path,
) -> None:
    def print_at(moment: int, words: bytes) -> None:
        with (tmp_path / "stdout").open("ab") as log:
            log.write(words)
        os.utime(tmp_path / "stdout", (moment, moment))

    listener = Listener()
    print_at(1_000, b"one")
    listener.shipper.follow(REF, tmp_path)
    async with running(listener):
        for number, (moment, words) in enumerate(
            [(2_000, b"two"), (3_000, b"three"), (2**33, b"x")]
        ):
            # It looks when there is news, too; the tasks of the loop have some turns for it.
            listener.shipper.follow(
                AttemptRef("default", "p", f"other-{number}", 1, 1), tmp_path / "no"
            )
            await until(partial(next, iter([False] * 4 + [True])), 5, "a look")
            print_at(moment, words)
        listener.shipper.session_opened()
        await until(lambda: len(listener.pieces) == 4, 5, "all of it")
        times = [piece.print_time and piece.print_time.timestamp() for piece in listener.pieces]
        assert times == [1_000, 2_000, 3_000, None]
        assert b"|".join(piece.data for piece in listener.pieces) == b"one|two|three|x"


async def test_what_is_in_flight_and_what_is_shipped_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "stderr").write_bytes(b"x" * (LIVE_LOG_BYTES_MAX + 1000))
    listener = Listener()
    listener.shipper.follow(REF, tmp_path)
    async with running(listener):
        listener.shipper.session_opened()
        await until(
            lambda: sum(len(piece.data) for piece in listener.pieces) == 4 << 20, 5, "4 MiB"
        )
        total = 0
        while total < LIVE_LOG_BYTES_MAX:
            await until(lambda: listener.pieces, 5, "pieces")
            assert sum(len(piece.data) for piece in listener.pieces) <= 4 << 20
            total += sum(len(piece.data) for piece in listener.pieces)
            listener.confirm_all()
        assert total == LIVE_LOG_BYTES_MAX
        assert await listener.shipper.finish(REF, 5)


async def test_an_end_waits_for_the_last_words_but_not_for_ever(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"bye")
    listener = Listener()
    listener.shipper.follow(REF, tmp_path)
    assert not await listener.shipper.finish(REF, 60)
    async with running(listener):
        listener.shipper.session_opened()
        assert not await listener.shipper.finish(REF, 0.01)
        finishing = asyncio.create_task(listener.shipper.finish(REF, 30))
        await until(lambda: listener.pieces, 5, "a piece")
        listener.confirm_all()
        assert await finishing
        listener.shipper.unfollow(REF)
        assert await listener.shipper.finish(REF, 1)


def test_last_words_begin_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    path.write_text("first line\nsecond line\nlast\n")
    assert tail(path) == "first line\nsecond line\nlast"
    assert tail(path, 15) == "last"
    path.write_bytes(b"\xff" * 100)
    assert len(tail(path, 10)) == 10
    assert tail(tmp_path / "absent") == ""


async def test_secrets_are_hidden_across_the_borders_of_pieces_and_offsets_stay(
    tmp_path: Path,
) -> None:
    value = b"correct horse battery staple"
    mask = SecretMask([value])
    path = tmp_path / "stdout"
    listener = Listener()
    listener.shipper.follow(REF, tmp_path, mask)
    shown = b""

    async def shipped(size: int) -> None:
        nonlocal shown
        await until(lambda: sum(len(one.data) for one in listener.pieces) >= size, 5, "pieces")
        for piece in listener.pieces:
            assert piece.offset == len(shown)
            shown += piece.data
        listener.confirm_all()

    async with running(listener):
        # The border of the first piece is within a value.
        filler = b"x" * ((64 << 10) - 10)
        path.write_bytes(filler + value + b"\n")
        listener.shipper.session_opened()
        await shipped(len(filler) + len(value) + 1)
        assert shown == filler + b"*" * len(value) + b"\n"

        # What may begin a value waits for what is behind it.
        with path.open("ab") as log:
            log.write(b"a" + value[:9])
        await shipped(1)
        assert shown.endswith(b"\na")
        with path.open("ab") as log:
            log.write(value[9:] + b"b" + value[:7])
        await shipped(len(value) + 1)
        assert shown.endswith(b"a" + b"*" * len(value) + b"b")

        # At the end nothing is behind it.
        finishing = asyncio.create_task(listener.shipper.finish(REF, 30))
        await shipped(7)
        assert await finishing
        assert shown.endswith(b"b*******")
        assert len(shown) == path.stat().st_size


async def test_what_had_ended_before_is_shipped_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"see cor")
    listener = Listener()
    listener.shipper.follow(REF, tmp_path, SecretMask([b"correct"]), ended=True)
    async with running(listener):
        listener.shipper.session_opened()
        await until(lambda: listener.pieces, 5, "a piece")
        assert [one.data for one in listener.pieces] == [b"see cor"]


def test_last_words_have_no_secret_that_begins_before_them(tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    path.write_bytes(b"x" * 50 + b"correct horse" + b"yyy")
    assert tail(path, 10, SecretMask([b"correct horse"])) == "*******yyy"
