"""Folders that are to go: moved aside at once, removed bit by bit beside everything else.

To move a folder is one rename, whatever is in it, so nothing waits for a removal: neither an attempt
that is forgotten, nor one that needs the name again, nor the start of the agent. What cannot be
removed stays in the trash, is logged once, and is tried again later and more and more rarely.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.long_work import LongWork
from edge_agent.removal import Leftover, make_movable, remove_tree
from edge_agent.tree import children
from services.runtime.log import fields
from shoal.backoff import Backoff

LOG = logging.getLogger(__name__)

_AGAIN: Final = Backoff(60.0, 6 * 3600.0)
_ASIDE: Final = ".gone-"


@dataclass(eq=False)
class Trash:
    """The trash of a node; `open` it and let it `run`.

    Args:
        folder: where it is, on the file system of what is thrown into it.
        work: does the removing.
        new_id: draws a short word, never the same twice.
        chance: draws from [0, 1) for the jitter between tries.
    """

    folder: Path
    work: LongWork
    _: KW_ONLY
    new_id: Callable[[], str]
    chance: Callable[[], float]
    backoff: Backoff = _AGAIN
    _waiting: dict[Path, tuple[float, int]] = field(default_factory=dict[Path, tuple[float, int]])
    """When each is tried next by the loop's clock, and how often it was."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        """Find what an earlier agent left."""
        for path in await asyncio.to_thread(children, self.folder):
            self._waiting[path] = (0.0, 0)

    async def throw(self, path: Path) -> None:
        """Move a folder aside, from where it is removed; nothing happens where there is none.

        Raises:
            OSError: it cannot be moved; the message names it.
        """
        place = await asyncio.to_thread(self._move, path)
        if place is not None:
            self._waiting[place] = (0.0, 0)
            self._news.set()

    async def throw_or_leave(self, path: Path, what: str) -> None:
        """Throw a path away; where it cannot be moved, it stays, and `what` it is, is logged."""
        try:
            await self.throw(path)
        except OSError as error:
            LOG.warning("%s cannot be moved away", what, extra=fields(path=path, error=error))

    async def run(self) -> None:
        """Remove what is thrown away, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            due = min(self._waiting.items(), key=lambda item: item[1], default=None)
            if due is None or due[1][0] > loop.time():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(None if due is None else due[1][0]):
                        await self._news.wait()
                continue
            path, (_, tries) = due
            leftover = await self._remove(path)
            if not leftover.count:
                del self._waiting[path]
                continue
            delay = self.backoff.delay_seconds(tries + 1, self.chance())
            self._waiting[path] = (loop.time() + delay, tries + 1)
            _tell(path, leftover, delay, first=tries == 0)

    async def _remove(self, path: Path) -> Leftover:
        try:
            return await self.work.run(remove_tree(path))
        except Exception as error:  # whatever a job has made, it costs its own folder alone
            LOG.exception("a removal failed unexpectedly", extra=fields(path=path))
            return Leftover(1, [str(error)])

    def _move(self, path: Path) -> Path | None:
        if not os.path.lexists(path):
            return None
        name = self.new_id()
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        # A folder that was given to another user can only be renamed where it is.
        places = (self.folder / name, path.with_name(f"{_ASIDE}{name}"))
        trouble = OSError(errno.EBUSY, "it cannot be moved", str(path))
        for helped in (False, True):
            if helped and not make_movable(path):
                break
            for place in places:
                try:
                    path.rename(place)
                except OSError as error:
                    trouble = error
                else:
                    return place
        raise trouble


def _tell(path: Path, leftover: Leftover, delay_seconds: float, *, first: bool) -> None:
    LOG.log(
        logging.WARNING if first else logging.DEBUG,
        "what a job left cannot be removed, it is tried again later",
        extra=fields(
            path=path,
            left=leftover.count,
            why="; ".join(leftover.reasons),
            again_in_seconds=round(delay_seconds),
        ),
    )
