"""An MQTT broker in memory, as the outbox sees it: QoS 1, and connections that it loses."""

import asyncio
from collections.abc import Callable
from random import Random

from services.events.broker_link import BrokerLink, LinkLostError
from services.events.broker_url import BrokerAddress
from services.events.entry import OutboxEntry
from services.events.terms import UNKNOWN, Terms

PUBLISH_SECONDS = 0.01


class MemoryBroker:
    """What has arrived, in order, with whatever was said twice.

    Args:
        rng: decides what is lost.
        arrived: is told of every event as it arrives.
    """

    def __init__(self, rng: Random, arrived: Callable[[str], None] = lambda _: None) -> None:
        self.rng = rng
        self.arrived = arrived
        self.up = True
        self.links: dict[MemoryBrokerLink, None] = {}

    def open_link(
        self, address: BrokerAddress, client_id: str, *, timeout_seconds: float, terms: Terms
    ) -> BrokerLink:
        """Make a connection."""
        del address, client_id, timeout_seconds, terms
        return MemoryBrokerLink(self)

    def drop(self) -> None:
        """End every connection; what was on its way may have arrived, unacknowledged."""
        for link in tuple(self.links):
            link.lose("the broker hung up")

    def stop(self) -> None:
        """Be away."""
        self.up = False
        self.drop()

    def start(self) -> None:
        """Be there again."""
        self.up = True


class MemoryBrokerLink:
    """One connection."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.terms = UNKNOWN

    def lose(self, why: str) -> None:
        """End it."""
        self._broker.links.pop(self, None)
        if not self._lost.done():
            self._lost.set_result(why)

    async def hold(self, connected: asyncio.Event) -> None:
        """Connect, and stay."""
        await asyncio.sleep(PUBLISH_SECONDS)
        if not self._broker.up:
            raise LinkLostError("connection refused")
        self._broker.links[self] = None
        connected.set()
        try:
            raise LinkLostError(await self._lost)
        finally:
            self._broker.links.pop(self, None)

    async def publish(self, entry: OutboxEntry, losses: int = 0) -> str:
        """Publish one event; the acknowledgement may be lost, and the event has arrived."""
        del losses
        await asyncio.sleep(PUBLISH_SECONDS * self._broker.rng.random())
        if self._lost.done():
            raise LinkLostError(self._lost.result())
        self._broker.arrived(entry.id)
        await asyncio.sleep(PUBLISH_SECONDS * self._broker.rng.random())
        if self._lost.done():
            raise LinkLostError(self._lost.result())
        return ""
