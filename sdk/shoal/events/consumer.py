"""A consumer of events: one after the other, each acknowledged once your code is done with it.

Theory. The broker keeps a session under the name of the consumer: what was published while it was away, and
what it was given and did not acknowledge. An event is acknowledged only after it is recorded in the
memory, and recorded only after your code is done with it.

Invariant. Every event that was acknowledged is recorded, and every event that is recorded was handled. So
whatever dies at whatever moment, an event comes again until it is handled, and is not handed over again once
it is recorded.

Why asking for the next event says that one is done: a `for` loop does exactly that, and a body that
raises or returns does not.

Example: your program is killed within the body of the loop. The broker has no acknowledgement, and gives the
event again to the next start; the memory does not know it, so the loop gets it again.

Sources: MQTT 5.0 (OASIS), sections 3.1.2.11 (session expiry, Receive Maximum), 4.4 (delivery retry) and 4.6
(order); paho-mqtt 2, `manual_ack`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from shoal.backoff import Backoff
from shoal.events.memory import EventMemory, WindowEventMemory
from shoal.events.received import ReceivedEvent, read_event

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from shoal.events.connection import EventConnection

LOG = logging.getLogger(__name__)

SESSION_SECONDS: Final = 15 * 86_400
"""How long the broker keeps events for a consumer that is away, if it lets us choose."""
_AGAIN: Final = Backoff(0.2, 30.0)


class EventsExtraError(ImportError):
    """What speaks MQTT is not installed."""


class _Came(NamedTuple):
    connection: EventConnection
    number: int
    event: ReceivedEvent


@dataclass(eq=False)
class EventConsumer:
    """Events of topics, in the order of the broker; `async with` it, and loop over it.

    Args:
        host: where the broker is.
        topics: what to listen to, such as `events_of("default")`; wildcards are those of MQTT.
        name: its client id at the broker, where its session belongs to it: unique there, and the same after a
            restart.
        port: of the broker.
        memory: remembers which events were handled; by default until the program ends.
        username: at the broker; empty for none.
        password: of that user.
        tls: what checks the broker's certificate (`ssl.create_default_context(cafile=…)`); None is in the clear.
        retained: whether to begin with what the broker has retained, as on topics of `states_of`.
        window: how many events the broker may send ahead.
        session_seconds: how long the broker keeps events while the consumer is away.
        chance: a number from [0, 1) for each pause.

    Raises:
        EventsExtraError: `aiomqtt` is not installed.
    """

    host: str
    topics: Sequence[str]
    name: str
    port: int = 1883
    _: KW_ONLY
    memory: EventMemory = field(default_factory=WindowEventMemory)
    username: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    retained: bool = False
    window: int = 20
    session_seconds: int = SESSION_SECONDS
    chance: Callable[[], float] = random.random
    waits: str = field(default="", init=False)
    """Why nothing comes, for people; empty while the broker is there."""
    _connection: EventConnection | None = field(default=None, init=False)
    _came: _Came | None = field(default=None, init=False)
    """What was received, and is not known yet to be news; kept over calls that are cancelled."""
    _taken: _Came | None = field(default=None, init=False)
    """What was handed over last."""
    _connected_before: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        try:
            from shoal.events.connection import EventConnection  # noqa: PLC0415
        except ImportError as error:
            raise EventsExtraError(
                f"{error.name} is not installed: install shoal[events], or shoal-server, which has it"
            ) from error
        self._open = EventConnection

    @property
    def connected(self) -> bool:
        """Whether it is connected, as far as it has noticed: that it is not, the next call notices."""
        return self._connection is not None

    async def __aenter__(self) -> Self:
        """Nothing yet: the first event that is asked for connects."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the broker; an event that was not done with comes again."""
        await self._leave()

    def __aiter__(self) -> Self:
        """Return itself: there is one stream of events."""
        return self

    async def __anext__(self) -> ReceivedEvent:
        """Say that the last event is done with, and return the next one; waits as long as there is none.

        Raises:
            SubscriptionRefusedError: the broker does not let us listen.
        """
        await self.done()
        while True:
            came = self._came = self._came or await self._receive()
            event = came.event
            known = bool(event.id) and await self.memory.handled(event.id)
            self._came = None
            if not known:
                self._taken = came
                return event
            self._acknowledge(came)

    async def _receive(self) -> _Came:
        """Return the next message, however long there is no broker."""
        while True:
            connection = self._connection or await self._connect()
            try:
                number, topic, payload = await connection.receive()
            except ConnectionError as error:
                await self._lose(error)
            else:
                return _Came(connection, number, read_event(topic, payload))

    def _acknowledge(self, came: _Came) -> None:
        if came.connection is self._connection:  # else it comes again, and is known
            came.connection.acknowledge(came.number)

    async def done(self) -> None:
        """Say that the last event is done with, before another one is asked for; again it does nothing."""
        taken = self._taken
        if taken is None:
            return
        if taken.event.id:
            await self.memory.record(taken.event.id)
        self._taken = None
        self._acknowledge(taken)

    async def _connect(self) -> EventConnection:
        """Connect and subscribe, however long the broker is away."""
        failures = 0
        while True:
            connection = self._open(
                self.host,
                self.port,
                self.name,
                username=self.username,
                password=self.password,
                tls=self.tls,
                window=self.window,
                session_seconds=self.session_seconds,
            )
            try:
                await connection.open(self.topics, retained=self.retained)
            except ConnectionError as error:
                failures += 1
                self._say(error)
                await asyncio.sleep(_AGAIN.delay_seconds(failures, self.chance()))
                continue
            if self.waits:
                LOG.info("the broker %s:%d is there again", self.host, self.port)
            self.waits = ""
            if self._connected_before and not connection.resumed:
                LOG.warning(
                    "the broker %s:%d has forgotten the session of %s: what was published meanwhile does not "
                    "come; let it keep sessions over restarts (mosquitto: persistence true)",
                    self.host,
                    self.port,
                    self.name,
                )
            self._connected_before = True
            self._connection = connection
            return connection

    async def _lose(self, error: ConnectionError) -> None:
        self._say(error)
        await self._leave()

    def _say(self, error: ConnectionError) -> None:
        waits = f"broker {self.host}:{self.port} is away: {error}; it is tried again"
        if waits != self.waits:
            LOG.warning("%s", waits)
        self.waits = waits

    async def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(ConnectionError):
                await connection.close()
