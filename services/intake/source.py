"""Where messages come from: what all sources can do, whatever they are made of."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from services.intake.message import IncomingMessage

Deliver = Callable[[IncomingMessage], Awaitable[None]]
"""Hands a message over; it waits while too many are here."""


class ServerAwayError(Exception):
    """A server does not answer, or does not let us in; trying again may help."""


class DeliveryLostError(Exception):
    """A source knows nothing of a delivery any more: it delivers the message again."""


class LetterRefusedError(Exception):
    """A dead-letter queue never takes this message, such as one that is too long with its reason."""


class MessageSource(Protocol):
    """Delivers messages, again and again until they are deleted."""

    @property
    def name(self) -> str:
        """What messages have as their `source`."""
        ...

    async def run(self, deliver: Deliver) -> None:
        """Deliver messages until cancelled; what fails is told and tried again."""
        ...

    async def delete(self, message: IncomingMessage) -> None:
        """Forget a message.

        Raises:
            ServerAwayError: that cannot be done now.
            DeliveryLostError: this delivery is over.
        """
        ...

    async def hide(self, message: IncomingMessage, seconds: float) -> None:
        """Keep a message from other receivers for so many seconds; 0 gives it back.

        Raises:
            ServerAwayError: that cannot be done now.
            DeliveryLostError: this delivery is over.
        """
        ...


class DeadLetters(Protocol):
    """Where messages are put aside."""

    async def bury(self, message: IncomingMessage, tries: int, reason: str) -> None:
        """Put a message aside durably; putting it aside again changes nothing that matters.

        Raises:
            ServerAwayError: that cannot be done now.
            LetterRefusedError: that can never be done.
        """
        ...
