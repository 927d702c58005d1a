"""A call whose caller was let in: what its service sees of it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio

from control.core.call_note import CallNote
from services.identity.access.caller import Caller


class CheckedCall:
    """Stands for gRPC's context, and looks at each message of the caller's stream before its service does.

    Args:
        context: gRPC's.
        caller: its caller.
        note: what is told of the call when it changes something.
        check: looks at a message; raises if it may not be.
    """

    def __init__(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        caller: Caller,
        note: CallNote,
        check: Callable[[Any], None],
    ) -> None:
        self._context = context
        self.caller = caller
        self.note = note
        self._check = check

    def __getattr__(self, name: str) -> Any:
        """What gRPC's context has."""
        return getattr(self._context, name)

    async def read(self) -> Any:
        """Read a message that may be; the end of the stream is gRPC's EOF."""
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            self._check(message)
        return message

    async def checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Pass on the messages of a stream that may be."""
        async for message in requests:
            self._check(message)
            yield message


def caller_of(context: object) -> Caller | None:
    """Return the caller of a call; None in a cluster without identity."""
    return context.caller if isinstance(context, CheckedCall) else None


def note_of(context: object) -> CallNote | None:
    """Return what is told of a call; None in a cluster without identity."""
    return context.note if isinstance(context, CheckedCall) else None


def bound_to(context: object) -> str:
    """Return the only namespace of a caller; empty for one that may look into all."""
    caller = caller_of(context)
    return "" if caller is None else caller.identity.namespace
