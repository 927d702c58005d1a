"""A connection to a broker, whatever it is made of, and how it fails."""

import asyncio
from dataclasses import replace
from typing import Protocol

from services.events.broker_url import BrokerAddress
from services.events.entry import OutboxEntry
from services.events.terms import (
    NOT_AUTHORIZED,
    QOS_NOT_SUPPORTED,
    QUOTA_EXCEEDED,
    RETAIN_NOT_SUPPORTED,
    Terms,
)


class LinkLostError(Exception):
    """The broker cannot be reached, refuses, or is gone; the message says which.

    `code` is the reason code of MQTT 5 with which it refused or ended the connection, else 0.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    @property
    def denied(self) -> bool:
        """Whether it is about what we may do, and not about what was sent."""
        return self.code in {NOT_AUTHORIZED, QUOTA_EXCEEDED}


class RefusedMessageError(Exception):
    """The broker, on a link that goes on, does not take a message; `final` if it never will."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


def learnt(terms: Terms, lost: LinkLostError) -> Terms:
    """Return what a refused connection says: the will was retained, or surer than the broker is."""
    if lost.code == RETAIN_NOT_SUPPORTED:
        return replace(terms, retain=False)
    if lost.code == QOS_NOT_SUPPORTED:
        return replace(terms, qos=0)
    return terms


class BrokerLink(Protocol):
    """One connection; `hold` it once, publish while it is held."""

    @property
    def terms(self) -> Terms:
        """What the broker takes, as far as it has said."""
        ...

    async def hold(self, connected: asyncio.Event) -> None:
        """Connect, set `connected`, and stay until the connection ends.

        Raises:
            LinkLostError: always, unless it is cancelled.
        """
        ...

    async def publish(self, entry: OutboxEntry, losses: int = 0) -> str:
        """Publish one event and wait for its acknowledgement.

        It is cut to what the broker takes, and to less from the second of `losses` links on that
        broke with it. Returns what the broker refused besides; empty if nothing.

        Raises:
            RefusedMessageError: the broker does not take the event.
            LinkLostError: no acknowledgement came; the link ends then.
        """
        ...


class OpenLink(Protocol):
    """Makes a connection to a broker, which is dialled once it is held.

    Raises:
        LinkLostError: when it cannot even be made.
    """

    def __call__(
        self, address: BrokerAddress, client_id: str, *, timeout_seconds: float, terms: Terms
    ) -> BrokerLink:
        """Make one; `timeout_seconds` is how long the broker may take to answer anything."""
        ...
