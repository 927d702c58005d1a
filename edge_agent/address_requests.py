"""Addresses of files, asked of the controller over the session and handed to the attempts that wait.

A request is said again with each new session, since one that broke may have lost it or its answer. An
answer that comes twice, or too late, is dropped.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from edge_agent.download import FetchError
from shoal.names import AttemptRef
from shoal.session.folder_files import FilesGranted, FilesWanted
from shoal.session.messages import FromAgent

_PATIENCE_SECONDS: Final = 600.0

Ask: TypeAlias = Callable[[FilesWanted], Awaitable[tuple[str, ...]]]
"""Asks for addresses of files; raises `FetchError`."""


class AddressRequests:
    """Asks for addresses.

    Args:
        say: says something to the controller; what is said without a session is lost.
        patience_seconds: how long to wait for an answer.
    """

    def __init__(
        self,
        say: Callable[[FromAgent], Awaitable[None]],
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._say = say
        self._patience_seconds = patience_seconds
        self._waiting: dict[
            tuple[AttemptRef, str, int], tuple[FilesWanted, asyncio.Future[FilesGranted]]
        ] = {}

    async def ask(self, wanted: FilesWanted) -> tuple[str, ...]:
        """Return one address for each file.

        Raises:
            FetchError: the controller has none, or did not say for too long.
        """
        key = (wanted.ref, wanted.input, wanted.first)
        answer: asyncio.Future[FilesGranted] = asyncio.get_running_loop().create_future()
        self._waiting[key] = (wanted, answer)
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._say(wanted)
                granted = await answer
        except TimeoutError as error:
            raise FetchError(
                f"the controller gave no addresses for the input {wanted.input!r} for "
                f"{self._patience_seconds:g} s"
            ) from error
        finally:
            del self._waiting[key]
        if granted.problem or len(granted.urls) != wanted.count:
            why = granted.problem or f"it named {len(granted.urls)} of {wanted.count}"
            raise FetchError(
                f"the controller has no addresses for the input {wanted.input!r}: {why}"
            )
        return granted.urls

    def take(self, granted: FilesGranted) -> None:
        """Hand an answer to the attempt that waits for it."""
        waiting = self._waiting.get((granted.ref, granted.input, granted.first))
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(granted)

    async def say_again(self) -> None:
        """Ask for what an earlier session did not answer."""
        for wanted, answer in list(self._waiting.values()):
            if not answer.done():
                await self._say(wanted)
