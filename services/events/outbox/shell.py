"""The asyncio shell around the outbox: reads rows, holds the link, publishes, lets go."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Protocol, assert_never

from services.events.broker_link import (
    BrokerLink,
    LinkLostError,
    OpenLink,
    RefusedMessageError,
    learnt,
)
from services.events.broker_url import BrokerAddress, check_client_id
from services.events.entry import OutboxEntry
from services.events.outbox import effects, events
from services.events.outbox.machine import Link, OutboxConfig, OutboxMachine
from services.events.terms import Terms, terms_of
from services.runtime.driver import Driver
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

_REMARKS_MAX = 8
NO_BROKER = "no broker configured: events are kept in the outbox"


class RowsUnavailableError(Exception):
    """The rows cannot be read or let go of now; trying again may help."""


class Rows(Protocol):
    """Where the rows of the outbox are kept. Both methods may raise `RowsUnavailableError`."""

    async def read(self, after: int, limit: int) -> events.RowsRead:
        """Return events with a sequence above `after`, in order, at most `limit`."""
        ...

    async def mark(self, sequences: Sequence[int], aside: Mapping[int, str]) -> None:
        """Durably let go of rows that have arrived, or that cannot: `aside` says of these why."""
        ...


def open_mqtt(
    address: BrokerAddress, client_id: str, *, timeout_seconds: float, terms: Terms
) -> BrokerLink:
    """Make a connection to an MQTT broker; its library is loaded with the first one."""
    from services.events.mqtt_link import MqttLink  # noqa: PLC0415

    return MqttLink(address, client_id, timeout_seconds=timeout_seconds, terms=terms)


@dataclass(eq=False)
class OutboxShell:
    """Brings the events of an outbox to a broker for as long as `run` runs.

    Args:
        rows: where the events are kept.
        address: where the broker is.
        client_id: our name at the broker; the same after a restart.
        clock: seconds on a monotonic clock.
        wall: now, for people.
        chance: a number from [0, 1) for each backoff.
        config: window and times.
        timeout_seconds: how long the broker may take to answer anything.
        open_link: makes a connection.
        held: says why an event may not leave yet, and nothing if it may; it is asked again when `try_again`
            is called, and less and less often.
    """

    rows: Rows
    address: BrokerAddress
    client_id: str
    _: KW_ONLY
    clock: Callable[[], float]
    wall: Callable[[], datetime]
    chance: Callable[[], float]
    config: OutboxConfig = OutboxConfig()  # noqa: RUF009 - frozen and slotted, as any value
    timeout_seconds: float = 10.0
    open_link: OpenLink = open_mqtt
    held: Callable[[OutboxEntry], str] = lambda _: ""
    published: int = 0
    _tasks: asyncio.TaskGroup | None = None
    _current: BrokerLink | None = None
    _down_since: datetime | None = None
    _terms: Terms = field(init=False)
    _said: str = ""
    """Why the broker cannot be reached, as the log has it."""
    _remarks: dict[str, None] = field(default_factory=dict[str, None])

    def __post_init__(self) -> None:
        check_client_id(self.client_id)
        self._terms = terms_of(self.address.limits)
        self._outbox = OutboxMachine(self.config, self.clock())
        self._driver = Driver[events.OutboxEvent, effects.OutboxEffect](
            self._outbox, self._act, self.clock
        )

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us."""
        return self._outbox.link is Link.UP

    def sentence(self, waiting: str) -> str:
        """Return the state of the connection for people; `waiting` says how many events wait."""
        if self.connected:
            said = (f"connected to {self.address.shown}", *self._remarks)
            return "; ".join((*said, *self._resting()))
        if self._down_since is None:
            return f"connecting to {self.address.shown}"
        since = self._down_since.isoformat(timespec="seconds").replace("+00:00", "Z")
        return (
            f"broker {self.address.shown} unreachable since {since}: {waiting} "
            f"({self._outbox.reason})"
        )

    def resting(self, namespace: str, subject: str) -> str:
        """Why the events of a subject wait although the broker is there; empty if they do not."""
        return self._outbox.resting(namespace, subject)

    def _resting(self) -> tuple[str, ...]:
        count = self._outbox.rests
        what = "one subject" if count == 1 else f"{count} subjects"
        return (f"events of {what} wait and are tried again",) if count else ()

    def _remark(self, words: str) -> None:
        """Say something about the broker, once."""
        if words and words not in self._remarks and len(self._remarks) < _REMARKS_MAX:
            self._remarks[words] = None
            LOG.warning("the broker: %s", words, extra=fields(broker=self.address.shown))

    def grown(self) -> None:
        """Say that rows were added; costs nothing when many say so."""
        self._driver.offer(events.Grown())

    def try_again(self) -> None:
        """Say that what was held or refused may leave now."""
        self._driver.offer(events.RestsOver())

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._driver.run()

    def _act(self, effect: effects.OutboxEffect) -> None:
        # Everything that waits does so in a task of its own: the broker must not hold up the store.
        match effect:
            case effects.Connect():
                self._start(self._hold())
            case effects.Publish(entry, losses):
                self._start(self._publish(entry, losses, self._current))
            case effects.ReadRows(after, limit):
                self._start(self._read(after, limit))
            case effects.MarkRows(sequences, aside):
                self._start(self._mark(sequences, aside))
            case _:
                assert_never(effect)

    def _start(self, doing: Coroutine[object, object, None]) -> None:
        if self._tasks is None:
            raise RuntimeError("this publisher does not run")
        self._tasks.create_task(doing)

    async def _hold(self) -> None:
        connected = asyncio.Event()
        reason, denied = "the connection ended", False
        try:
            link = self.open_link(
                self.address,
                self.client_id,
                timeout_seconds=self.timeout_seconds,
                terms=self._terms,
            )
            async with asyncio.TaskGroup() as tasks:
                saying = tasks.create_task(self._say_connected(link, connected))
                try:
                    await link.hold(connected)
                finally:
                    saying.cancel()
        except* LinkLostError as group:
            [lost, *_] = group.exceptions
            reason = str(lost)
            if isinstance(lost, LinkLostError):
                self._terms = learnt(self._terms, lost)
                denied = lost.denied
        except* Exception as group:
            # One attempt of many: whatever a broker makes the library do, the next may go well.
            LOG.exception("connection to the broker failed")
            reason = repr(group.exceptions[0])
        self._current = None
        if self._down_since is None:
            self._down_since = self.wall()
            self._said = ""
        if reason != self._said:
            self._said = reason
            LOG.warning(
                "broker unreachable; events are kept in the outbox",
                extra=fields(broker=self.address.shown, why=reason),
            )
        await self._driver.post(events.LinkLost(reason, self.chance(), denied=denied))

    async def _say_connected(self, link: BrokerLink, connected: asyncio.Event) -> None:
        await connected.wait()
        self._current = link
        self._down_since = None
        self._remarks.clear()
        for words in link.terms.remarks():
            self._remark(words)
        LOG.info(
            "connected to the broker",
            extra=fields(broker=self.address.shown, limits=self.address.limits or "as it says"),
        )
        await self._driver.post(events.LinkUp())

    async def _publish(self, entry: OutboxEntry, losses: int, link: BrokerLink | None) -> None:
        if link is None:
            return  # the link was lost a moment ago, and `_hold` posts that
        if why := self.held(entry):
            await self._driver.post(events.PublishRefused(entry.sequence, why, self.chance()))
            return
        try:
            self._remark(await link.publish(entry, losses))
        except LinkLostError:
            return  # `_hold` reports the loss
        except RefusedMessageError as error:
            LOG.warning(
                "event set aside" if error.final else "event refused; trying again later",
                extra=fields(event=entry.id, why=error),
            )
            refused = events.PublishRefused(
                entry.sequence, str(error), self.chance(), final=error.final
            )
            await self._driver.post(refused)
            return
        self.published += 1
        await self._driver.post(events.PublishAcknowledged(entry.sequence))

    async def _read(self, after: int, limit: int) -> None:
        try:
            found = await self.rows.read(after, limit)
        except RowsUnavailableError as error:
            LOG.warning("outbox unreadable; trying again", extra=fields(why=error))
            await self._driver.post(events.StoreFailed(reading=True))
        else:
            await self._driver.post(found)

    async def _mark(self, sequences: Sequence[int], aside: Mapping[int, str]) -> None:
        for sequence, why in aside.items():
            LOG.warning("event set aside", extra=fields(sequence=sequence, why=why))
        try:
            await self.rows.mark(sequences, aside)
        except RowsUnavailableError as error:
            LOG.warning("published events not let go of; trying again", extra=fields(why=error))
            await self._driver.post(events.StoreFailed(reading=False))
        else:
            await self._driver.post(events.RowsMarked())
