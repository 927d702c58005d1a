"""Sessions of browsers."""

from pathlib import Path

import pytest

from services.gateway.session_file import SessionFile, is_second_word, second_word
from services.gateway.user_file import GatewayUser, UserFile, UserFileError, hash_of
from shoal.identity import Role


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def signed_in(folder: Path) -> tuple[UserFile, GatewayUser]:
    users = UserFile(folder / "users.json")
    users.allow(GatewayUser("ann", Role.VIEWER), "word-1")
    return users, GatewayUser("ann", Role.VIEWER, "", hash_of("word-1"))


async def test_a_session_outlives_its_gateway_and_ends_when_its_time_is_over(
    tmp_path: Path,
) -> None:
    users, ann = signed_in(tmp_path)
    clock = Clock()
    word = await SessionFile(tmp_path / "sessions.json", users, 60, clock).begin(ann)
    assert word not in (tmp_path / "sessions.json").read_text()
    later = SessionFile(tmp_path / "sessions.json", users, 60, clock)
    later.load()
    assert later.user(word) == ann
    clock.now += 60
    assert later.user(word) is None


async def test_a_session_ends_with_its_sign_out_and_with_its_token(tmp_path: Path) -> None:
    users, ann = signed_in(tmp_path)
    sessions = SessionFile(tmp_path / "sessions.json", users, 60, Clock())
    first, second = await sessions.begin(ann), await sessions.begin(ann)
    await sessions.end(first)
    assert (sessions.user(first), sessions.user(second)) == (None, ann)
    again = SessionFile(tmp_path / "sessions.json", users, 60, Clock())
    again.load()
    assert again.user(first) is None
    users.allow(GatewayUser("ann", Role.VIEWER), "word-2")
    assert sessions.user(second) is None


async def test_a_file_that_is_broken_is_told_with_the_remedy(tmp_path: Path) -> None:
    users, _ = signed_in(tmp_path)
    (tmp_path / "sessions.json").write_text("[1]")
    with pytest.raises(UserFileError, match="everybody signs in again"):
        SessionFile(tmp_path / "sessions.json", users, 60, Clock()).load()


def test_the_second_word_is_that_of_one_session() -> None:
    assert is_second_word("a", second_word("a"))
    assert not is_second_word("b", second_word("a"))
    assert not is_second_word("a", "")
    assert not is_second_word("a", "ü")
