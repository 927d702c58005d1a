"""The calls that last, and their end once what let them in is good no more.

Rule: a watch goes on for as long as a call of its user would be let in. `forbid`, a new token, a sign-out and the end
of a session's time end it, within two seconds. A watch that is ended while it waits for news tells its page why
(`unauthenticated`); one that is held back by a page that does not read is cut.

The commands about users write their file and have no word with the gateway that runs, so all watches are looked at
once a second. That is a look at the file's time, and two look-ups for each watch.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from services.gateway.session_file import SessionFile
from services.gateway.user_file import GatewayUser, UserFile, UserFileError
from shoal.errors import ShoalError

LOG = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_ALLOW: Final = "its operator lets a user in with `shoal gateway allow NAME`"


@dataclass(eq=False, slots=True)
class OpenWatch:
    """A call that lasts.

    Attributes:
        user: whose it is, as it was let in.
        session: word of the session that let it in; empty for a token, and for a caller without a sign-in.
        task: runs it.
        over: why it is ended; None while it goes on.
    """

    user: GatewayUser
    session: str
    task: "asyncio.Task[Any]"
    over: ShoalError | None = field(default=None, init=False)

    def told(self, error: asyncio.CancelledError) -> ShoalError:
        """Return why the watch is over; what cancels it for another reason goes on.

        Raises:
            CancelledError: something else has cancelled it.
        """
        if self.over is None:
            raise error
        self.task.uncancel()
        return self.over


class OpenWatches:
    """Those of one gateway.

    Args:
        users: those that may use the gateway.
        sessions: those of browsers that have signed in.
        most: how many a user may have.
    """

    def __init__(self, users: UserFile, sessions: SessionFile, most: int) -> None:
        self._users = users
        self._sessions = sessions
        self._most = most
        self._open: set[OpenWatch] = set()
        self._of_user: Counter[str] = Counter()
        self.ended = 0
        """How many were ended since what had let them in was good no more."""

    def __len__(self) -> int:
        return len(self._open)

    def take(self, user: GatewayUser, session: str) -> OpenWatch:
        """Take room for a call that lasts, which the current task runs; `give` gives it back.

        Args:
            user: whose it is.
            session: word of the session that lets it in; empty for none.

        Raises:
            ShoalError: the user has as many as it may.
        """
        if self._of_user[user.name] >= self._most:
            raise ShoalError(
                "QUOTA",
                f"{user.name} has {self._most} calls open that last, which is the most (--watches): close one",
                {"limit": str(self._most), "option": "--watches"},
                "RESOURCE_EXHAUSTED",
            )
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watch is taken by the task that runs it")
        watch = OpenWatch(user, session, task)
        self._of_user[user.name] += 1
        self._open.add(watch)
        return watch

    def give(self, watch: OpenWatch) -> None:
        """Give back the room of a call that lasted."""
        self._open.discard(watch)
        self._of_user[watch.user.name] -= 1
        if not self._of_user[watch.user.name]:
            del self._of_user[watch.user.name]

    async def run(self) -> NoReturn:
        """Look at them once a second, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """End those whose user would be let in no more."""
        for watch in [one for one in self._open if one.over is None]:
            try:
                why = self._why_over(watch)
            except (
                UserFileError
            ):  # which each call says; what is open stays open until it can be read
                return
            if why:
                watch.over = ShoalError("SIGNED_OUT", why, code="UNAUTHENTICATED")
                watch.task.cancel()
                self.ended += 1
                LOG.info("a watch was ended: %s", why)

    def _why_over(self, watch: OpenWatch) -> str:
        user = watch.user
        if not user.token_hash:  # it has not signed in, and nothing can end that
            return ""
        if self._users.of_name(user.name) != user:
            return f"{user.name} is let in no more, or with a new token: {_ALLOW}"
        if watch.session and self._sessions.user(watch.session) is None:
            return f"the session of {user.name} is over: sign in again"
        return ""
