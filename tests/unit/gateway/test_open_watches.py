"""What ends a watch that is open, and what does not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.gateway.open_watches import OpenWatch, OpenWatches
from services.gateway.session_file import SessionFile
from services.gateway.user_file import GatewayUser, UserFile
from shoal.errors import ShoalError
from shoal.identity import Role
from tests.kit.until import until


class Place:
    """Users, sessions with a clock that a test moves, and the watches."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.path = folder / "users.json"
        self.users = UserFile(self.path)
        self.users.allow(GatewayUser("ann", Role.VIEWER), "ann-word")
        self.sessions = SessionFile(folder / "sessions.json", self.users, 60, lambda: self.now)
        self.watches = OpenWatches(self.users, self.sessions, most=2)

    def user(self) -> GatewayUser:
        user = self.users.of_name("ann")
        assert user is not None
        return user


async def watched(place: Place, user: GatewayUser, session: str) -> None:
    """A watch as the contract serves it: it waits for news that do not come."""
    watch: OpenWatch = place.watches.take(user, session)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        raise watch.told(error) from error
    finally:
        place.watches.give(watch)


@asynccontextmanager
async def watching(
    place: Place, user: GatewayUser, session: str = ""
) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(watched(place, user, session))
    await until(lambda: len(place.watches) > 0 or task.done(), what="the watch")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=20)


async def forbidden(place: Place, _: str) -> None:
    # By another process: `shoal gateway forbid`.
    UserFile(place.path).forbid("ann")


async def allowed_again(place: Place, _: str) -> None:
    UserFile(place.path).allow(GatewayUser("ann", Role.VIEWER), "another word")


async def signed_out(place: Place, session: str) -> None:
    await place.sessions.end(session)


async def late(place: Place, _: str) -> None:
    place.now += 61


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (forbidden, "let in no more"),
        (allowed_again, "with a new token"),
        (signed_out, "sign in again"),
        (late, "sign in again"),
    ],
)
async def test_a_watch_ends_with_what_let_it_in(
    tmp_path: Path, end: Callable[[Place, str], Awaitable[None]], why: str
) -> None:
    place = Place(tmp_path)
    session = await place.sessions.begin(place.user())
    async with watching(place, place.user(), session) as task:
        place.watches.look()
        assert not task.cancelling()
        await end(place, session)
        place.watches.look()
        await until(task.done, what="the end of the watch")
        error = task.exception()
        assert isinstance(error, ShoalError)
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "SIGNED_OUT")
        assert why in error.message
    assert (len(place.watches), place.watches.ended) == (0, 1)


async def test_what_ends_a_session_ends_no_watch_of_a_token(tmp_path: Path) -> None:
    place = Place(tmp_path)
    session = await place.sessions.begin(place.user())
    async with watching(place, place.user()) as task:
        await place.sessions.end(session)
        place.now += 61
        place.watches.look()
        assert not task.cancelling()


async def test_a_caller_without_a_sign_in_goes_on_and_a_file_that_cannot_be_read_ends_nothing(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    async with watching(place, GatewayUser("anonymous", Role.VIEWER)) as task:
        UserFile(place.path).forbid("ann")
        place.watches.look()
        place.path.write_text("{")
        place.watches.look()
        assert not task.cancelling()


async def test_what_is_cancelled_for_another_reason_stays_cancelled(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with watching(place, place.user()) as task:
        task.cancel()
        await asyncio.wait((task,), timeout=20)
        assert task.cancelled()
    assert (len(place.watches), place.watches.ended) == (0, 0)


async def test_a_user_has_no_more_than_it_may(tmp_path: Path) -> None:
    place = Place(tmp_path)
    first = place.watches.take(place.user(), "")
    place.watches.take(place.user(), "")
    with pytest.raises(ShoalError) as error:
        place.watches.take(place.user(), "")
    assert error.value.metadata["option"] == "--watches"
    place.watches.take(GatewayUser("bob", Role.VIEWER, token_hash="0" * 64), "")
    place.watches.give(first)
    place.watches.take(place.user(), "")
