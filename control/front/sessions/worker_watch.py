"""Whether a node's stream worker is still there after its session broke.

A stream worker outlives its agent, so a broken session alone says nothing. But a worker whose port
refuses connections is dead, and with it every attempt that streams: those need not wait for the
lease. Only a refusal counts, and only of an address that was reached during the session; behind a
NAT, or when the whole host is silent, gossip and the lease decide as ever. A busy machine may answer
late or hang up on the first try, so a failed look is repeated before it means anything.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from control.core.errors import ControlError
from services.runtime.log import fields
from services.runtime.stream_address import reached

LOG = logging.getLogger(__name__)

_QUEUE = 1024
_CONNECT_SECONDS = 1.0
_FIRST_POLL_SECONDS = 0.02
_SLOWEST_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Opened:
    node: str
    session_id: str
    address: str


@dataclass(frozen=True, slots=True)
class _Closed:
    node: str
    session_id: str


class WorkerWatch:
    """Looks at stream workers when sessions open and break; `run` it beside the sessions.

    Args:
        gone: is told the node whose worker is gone.
        patience_seconds: how long it looks after a session was opened, and after it broke; the
            lease decides then.
        clock: seconds on a monotonic clock.
        listens: whether an address accepts connections; None when that cannot be told.
    """

    def __init__(
        self,
        gone: Callable[[str], Awaitable[None]],
        *,
        patience_seconds: float,
        clock: Callable[[], float],
        listens: Callable[[str], Awaitable[bool | None]],
    ) -> None:
        self._listens = listens
        self._gone = gone
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._queue: asyncio.Queue[_Opened | _Closed] = asyncio.Queue(_QUEUE)
        self._open: dict[str, _Opened] = {}
        self._reached: dict[str, _Opened] = {}

    def opened(self, node: str, session_id: str, address: str) -> None:
        """A session is open; its worker says that it listens at `address` (`host:port`)."""
        self._offer(_Opened(node, session_id, address))

    def closed(self, node: str, session_id: str) -> None:
        """A session is over, however it ended."""
        self._offer(_Closed(node, session_id))

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                match await self._queue.get():
                    case _Opened() as opened:
                        self._open[opened.node] = opened
                        self._reached.pop(opened.node, None)
                        tasks.create_task(self._reach(opened))
                    case _Closed(node, session_id):
                        known = self._open.get(node)
                        if known is None or known.session_id != session_id:
                            continue
                        del self._open[node]
                        reached = self._reached.pop(node, None)
                        if reached is not None:
                            tasks.create_task(self._follow(reached))

    def _offer(self, what: _Opened | _Closed) -> None:
        # A full queue only costs speed: what is not looked at is decided by the lease.
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(what)

    async def _reach(self, opened: _Opened) -> None:
        async for listens in self._looks(opened.address):
            current = self._open.get(opened.node)
            if listens and current is opened:
                self._reached[opened.node] = opened
            elif listens and current is None:
                await self._follow(opened)  # the session broke while it was being reached
            if listens or current is not opened:
                return

    async def _follow(self, reached: _Opened) -> None:
        async for listens in self._looks(reached.address):
            if self._reached.get(reached.node) is not None:
                return  # the agent is back, and its worker was reached
            if listens is False:
                LOG.warning(
                    "the stream worker of a node without a session is gone",
                    extra=fields(node=reached.node, address=reached.address),
                )
                with contextlib.suppress(ControlError):
                    await self._gone(reached.node)
                return

    async def _looks(self, address: str) -> AsyncIterator[bool | None]:
        """Look again and again, with growing pauses, until patience ends."""
        give_up_at = self._clock() + self._patience_seconds
        pause_seconds = _FIRST_POLL_SECONDS
        while self._clock() < give_up_at:
            yield await self._listens(address)
            # A process of another host, which does not say when it starts or dies.
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _SLOWEST_POLL_SECONDS)


async def listens(address: str) -> bool | None:
    """Whether connections are accepted there; None when that is unknown."""
    host, _, port = reached(address)[0].rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        return False
    except (OSError, ValueError, TimeoutError):
        return None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
