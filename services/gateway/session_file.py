"""Sessions of browsers, with their users and ends; in a file of the gateway's state, so that they outlive it.

Rule: a session is a word of 256 random bits in a cookie that no script can read. The file has its SHA-256, so a
reader of the file can take over no session. It is over when its time is, when its user signs out, and when the token
that it began with is good no more.

What a browser does by a cookie alone, another page can make it do. So a call that is no GET needs the session's
second word in a header, which only a page of this origin can have read. It is a hash of the first one, with a prefix,
so nothing has to be kept for it, and it does not give the first one away.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from services.gateway.user_file import GatewayUser, UserFile, UserFileError, write_whole

SESSIONS_NAME: Final = "sessions.json"
SESSIONS_MAX: Final = 10_000
"""Beyond it, the session that ends first makes room."""

_Row = tuple[str, str, float]
"""Name of the user, hash of its token, seconds since 1970 at which it ends."""


class SessionFile:
    """The sessions of one gateway.

    Args:
        path: the file.
        users: those of the gateway.
        seconds: how long one lasts.
        wall: seconds since 1970.
    """

    def __init__(
        self, path: Path, users: UserFile, seconds: float, wall: Callable[[], float]
    ) -> None:
        self._path = path
        self._users = users
        self._seconds = seconds
        self._wall = wall
        self._writing = asyncio.Lock()
        self._rows: dict[str, _Row] = {}

    def load(self) -> None:
        """Read what an earlier gateway has left.

        Raises:
            UserFileError: the file cannot be read.
        """
        try:
            rows: dict[str, Any] = json.loads(self._path.read_bytes())
            self._rows = {
                key: (str(row[0]), str(row[1]), float(row[2])) for key, row in rows.items()
            }
        except FileNotFoundError:
            self._rows = {}
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise UserFileError(
                f"{self._path} cannot be read ({error}): remove it, and everybody signs in again"
            ) from error

    async def begin(self, user: GatewayUser) -> str:
        """Begin a session, and return its word.

        Raises:
            UserFileError: it cannot be written.
        """
        word = secrets.token_urlsafe(32)
        now = self._wall()
        rows = {key: row for key, row in self._rows.items() if row[2] > now}
        while len(rows) >= SESSIONS_MAX:
            del rows[min(rows, key=lambda key: rows[key][2])]
        rows[_key(word)] = (user.name, user.token_hash, now + self._seconds)
        await self._keep(rows)
        return word

    async def end(self, word: str) -> None:
        """End a session, if it is one.

        Raises:
            UserFileError: it cannot be written.
        """
        if _key(word) in self._rows:
            await self._keep({key: row for key, row in self._rows.items() if key != _key(word)})

    def user(self, word: str) -> GatewayUser | None:
        """Return the user of a session; None for one that is over, or was none.

        Raises:
            UserFileError: the file of users cannot be read.
        """
        name, token_hash, end = self._rows.get(_key(word), ("", "", 0.0))
        if end <= self._wall():
            return None
        user = self._users.of_name(name)
        return user if user is not None and user.token_hash == token_hash else None

    def count(self) -> int:
        """How many are not over."""
        now = self._wall()
        return sum(row[2] > now for row in self._rows.values())

    async def _keep(self, rows: dict[str, _Row]) -> None:
        self._rows = rows
        async with self._writing:
            await asyncio.to_thread(write_whole, self._path, self._rows)


def second_word(word: str) -> str:
    """Return the word that a page has to send beside the cookie of a session."""
    return hashlib.sha256(b"second word of " + word.encode("utf-8", "replace")).hexdigest()


def is_second_word(word: str, said: str) -> bool:
    """Say whether it is that of a session."""
    return hmac.compare_digest(second_word(word).encode(), said.encode("utf-8", "replace"))


def _key(word: str) -> str:
    return hashlib.sha256(word.encode("utf-8", "replace")).hexdigest()
