"""Topics of MQTT: messages come with QoS 1 and are acknowledged once they are done with.

Rule: the session at the broker outlives connections and this process (clean start off, and it expires
after 15 days), so what was not acknowledged comes again; at most as many messages are on their way as
the intake may hold (Receive Maximum). A message that was published with QoS 0 comes once at most, and
one of them that finds the intake full is dropped and told: such publishers ask for no more.

Sources: MQTT 5.0 (OASIS), sections 3.1.2.11 (session expiry, Receive Maximum) and 4.4 (delivery retry);
paho-mqtt 2, `manual_ack`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from aiomqtt import Client, Message, MqttError, ProtocolVersion
from paho.mqtt.client import MQTT_ERR_SUCCESS, ConnectFlags, error_string
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from services.events.broken_link import why_unreachable
from services.events.broker_link import LinkLostError
from services.events.broker_url import BrokerAddress
from services.events.mqtt_link import broker_password, tls_context
from services.intake.message import IncomingMessage, MessageKind
from services.intake.reader import message_id
from services.intake.source import (
    Deliver,
    DeliveryLostError,
    LetterRefusedError,
    ServerAwayError,
)
from services.intake.sqs import printable
from services.runtime.log import fields
from shoal.backoff import Backoff

LOG = logging.getLogger(__name__)

SESSION_SECONDS: Final = 15 * 86_400
_PUBLISH_BYTES: Final = 9
"""What a PUBLISH has besides its topic, properties and payload: type, length, their lengths, its number."""
_TIMEOUT_SECONDS: Final = 10.0
_KEEPALIVE_SECONDS: Final = 10
_AGAIN: Final = Backoff(0.5, 30.0)
_SILENT: Final = logging.getLogger(f"{__name__}.paho")
_SILENT.disabled = True


@dataclass(eq=False)
class MqttIntakeLink:
    """The connection of an intake to its broker, for all topics; let `run` run.

    Args:
        address: where the broker stands.
        client_id: our name there; the session belongs to it.
        topics: what to subscribe to, and what the messages of each are about.
        held_max: how many messages may be unacknowledged.
        chance: a number from [0, 1) for each back-off.
    """

    address: BrokerAddress
    client_id: str
    topics: Mapping[str, MessageKind]
    held_max: int
    _: KW_ONLY
    chance: Callable[[], float]
    _client: "_ManualClient | None" = field(default=None, init=False)
    _connections: int = field(default=0, init=False)

    async def run(self, deliver: Deliver) -> None:
        """Connect, subscribe and deliver until cancelled; while the broker is away, with a growing pause."""
        failures = 0
        while True:
            try:
                await self._hold(deliver)
            except (MqttError, LinkLostError, OSError, ValueError) as error:
                failures = 1 if self._client is not None else failures + 1
                self._client = None
                if failures == 1:
                    why = self._why(error)
                    LOG.warning(
                        "the broker is away", extra=fields(broker=self.address.shown, why=why)
                    )
                await asyncio.sleep(_AGAIN.delay_seconds(failures, self.chance()))
            finally:
                self._client = None

    async def _hold(self, deliver: Deliver) -> None:
        connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        connect.SessionExpiryInterval = SESSION_SECONDS
        connect.ReceiveMaximum = max(1, min(65_535, self.held_max))
        client = _ManualClient(
            hostname=self.address.host,
            port=self.address.port,
            username=self.address.username or None,
            password=broker_password(self.address) or None,
            identifier=self.client_id,
            protocol=ProtocolVersion.V5,
            clean_start=False,
            timeout=_TIMEOUT_SECONDS,
            keepalive=_KEEPALIVE_SECONDS,
            properties=connect,
            tls_context=tls_context(self.address) if self.address.tls else None,
            logger=_SILENT,
            max_queued_incoming_messages=2 * self.held_max,
        )
        async with client:
            self._connections += 1
            for topic in self.topics:
                await client.subscribe_surely(topic)
            self._client = client
            LOG.info(
                "connected to the broker",
                extra=fields(broker=self.address.shown, topics=len(self.topics)),
            )
            async for message in client.messages:
                await deliver(self._incoming(message))

    def _incoming(self, message: Message) -> IncomingMessage:
        body = bytes(message.payload)
        topic = self._subscription(message)
        source = f"mqtt:{topic}"
        receipt = f"{self._connections} {message.mid} {message.qos}"
        return IncomingMessage(
            source, self.topics[topic], message_id(source, body), body, receipt, id_given=False
        )

    def _subscription(self, message: Message) -> str:
        found = (topic for topic in self.topics if message.topic.matches(topic))
        return next(found, next(iter(self.topics)))

    def acknowledge(self, message: IncomingMessage) -> None:
        """Say to the broker that a message is done with.

        Raises:
            ServerAwayError: there is no connection now.
            DeliveryLostError: it came on an earlier connection, so it comes again.
        """
        connection, mid, qos = (int(word) for word in message.receipt.split())
        if not qos:
            return
        if connection != self._connections:
            raise DeliveryLostError("the broker was away meanwhile")
        if self._client is None:
            raise ServerAwayError(f"broker {self.address.shown} is away")
        self._client.acknowledge(mid, qos)

    async def publish(self, topic: str, payload: bytes, told: Sequence[tuple[str, str]]) -> None:
        """Publish a message with QoS 1 and properties of ours.

        Raises:
            ServerAwayError: the broker is away, or does not take it.
            LetterRefusedError: it is larger than what the broker takes.
        """
        if self._client is None:
            raise ServerAwayError(f"broker {self.address.shown} is away")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = list(told)
        try:
            await self._client.publish_surely(topic, payload, properties)
        except (MqttError, ValueError) as error:
            raise ServerAwayError(f"broker {self.address.shown}: {error}") from error

    async def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish a message with QoS 1 that the broker retains.

        Raises:
            ServerAwayError: the broker is away, or does not take it.
            LetterRefusedError: it is larger than what the broker takes.
        """
        if self._client is None:
            raise ServerAwayError(f"broker {self.address.shown} is away")
        try:
            await self._client.publish_surely(topic, payload, retain=True)
        except (MqttError, ValueError) as error:
            raise ServerAwayError(f"broker {self.address.shown}: {error}") from error

    def _why(self, error: Exception) -> str:
        cause = error.__cause__ or error
        return why_unreachable(cause, self.address) if isinstance(cause, OSError) else str(error)


@dataclass(eq=False)
class MqttSource:
    """The messages of one topic, as a source; its link delivers them.

    Args:
        link: the connection of all topics.
        topic: which.
    """

    link: MqttIntakeLink
    topic: str

    @property
    def name(self) -> str:
        """`mqtt:` and the topic."""
        return f"mqtt:{self.topic}"

    async def run(self, deliver: Deliver) -> None:
        """Nothing: the link runs for all topics."""

    async def delete(self, message: IncomingMessage) -> None:
        """Acknowledge a message."""
        self.link.acknowledge(message)

    async def hide(self, message: IncomingMessage, seconds: float) -> None:
        """Nothing: the broker delivers a message once in a connection."""


@dataclass(eq=False)
class MqttDeadLetters:
    """Publishes messages on a topic as they came; the reason is a user property.

    Args:
        link: the connection.
        topic: which.
    """

    link: MqttIntakeLink
    topic: str

    async def bury(self, message: IncomingMessage, tries: int, reason: str) -> None:
        """Publish the message with the properties reason, tries, source and id."""
        told = {"reason": reason, "tries": str(tries), "source": message.source, "id": message.id}
        pairs = [(f"shoal-{name}", printable(value)) for name, value in told.items()]
        await self.link.publish(self.topic, message.body, pairs)


class _ManualClient(Client):
    """aiomqtt's client, but a message is acknowledged when we say so, and what is refused is an error."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._client.manual_ack_set(True)
        self._sent: dict[int, asyncio.Future[ReasonCode]] = {}
        self._packet_bytes = 0
        """The largest packet that the broker takes; 0 for any."""

    async def publish_surely(
        self,
        topic: str,
        payload: bytes,
        properties: Properties | None = None,
        *,
        retain: bool = False,
    ) -> None:
        """Publish with QoS 1; aiomqtt takes a refusal, such as that of an access list, for an acknowledgement.

        Raises:
            MqttError: the broker refuses it, or does not answer.
            LetterRefusedError: it is larger than what the broker takes.
        """
        packed = bytes(properties.pack()) if properties is not None else b""  # type: ignore[no-untyped-call]
        size = len(payload) + len(topic.encode()) + len(packed) + _PUBLISH_BYTES
        if 0 < self._packet_bytes < size:
            raise LetterRefusedError(
                f"topic {topic}: a message of {size} bytes is more than the {self._packet_bytes} "
                "that the broker takes"
            )
        sent = self._client.publish(topic, payload, 1, retain, properties)
        if sent.rc != MQTT_ERR_SUCCESS:
            raise MqttError(f"could not publish: {error_string(sent.rc)}")
        answer = self._sent[sent.mid] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.timeout):
                code = await answer
        except TimeoutError:
            raise MqttError("the broker did not answer in time") from None
        finally:
            self._sent.pop(sent.mid, None)
        if code.is_failure:
            raise MqttError(f"the broker refuses what is published on the topic {topic!r}: {code}")

    def _on_publish(
        self,
        client: PahoClient,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        del client, userdata, properties
        answer = self._sent.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)

    def _on_connect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self._packet_bytes = getattr(properties, "MaximumPacketSize", 0)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    async def subscribe_surely(self, topic: str) -> None:
        """Subscribe with QoS 1, without what was retained before.

        Raises:
            MqttError: the broker refuses it.
        """
        options = SubscribeOptions(qos=1)
        for code in await self.subscribe(topic, options=options):
            if isinstance(code, ReasonCode) and code.is_failure:
                raise MqttError(f"the broker refuses the topic {topic!r}: {code}")

    def acknowledge(self, mid: int, qos: int) -> None:
        """Send the acknowledgement of a message."""
        with contextlib.suppress(ValueError):
            self._client.ack(mid, qos)
