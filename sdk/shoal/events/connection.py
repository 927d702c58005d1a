"""One connection of a consumer to an MQTT broker, in a session that outlives it.

Sources: MQTT 5.0 (OASIS); aiomqtt 2.5 and paho-mqtt 2.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from aiomqtt import Client, MqttError, ProtocolVersion
from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from shoal.events.refusal import SubscriptionRefusedError

_TIMEOUT_SECONDS: Final = 10.0
_KEEPALIVE_SECONDS: Final = 10
_GOODBYE_SECONDS: Final = 2.0
_UNACKNOWLEDGED_MAX: Final = 4096
"""Messages that are not acknowledged may come without an end; more than these are dropped."""
_SILENT: Final = logging.getLogger(f"{__name__}.paho")
_SILENT.disabled = True


class EventConnection:
    """A connection; `open` it once.

    Args:
        host: where the broker is.
        port: its port.
        name: our client id, to which the session belongs.
        username: empty for none.
        password: of that user.
        tls: None for none.
        window: how many messages may be unacknowledged.
        session_seconds: how long the broker keeps the session.
    """

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        *,
        username: str,
        password: str,
        tls: ssl.SSLContext | None,
        window: int,
        session_seconds: int,
    ) -> None:
        connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        connect.SessionExpiryInterval = session_seconds
        connect.ReceiveMaximum = max(1, min(65_535, window))
        self._client = _SessionClient(
            hostname=host,
            port=port,
            identifier=name,
            username=username or None,
            password=password or None,
            protocol=ProtocolVersion.V5,
            clean_start=False,
            timeout=_TIMEOUT_SECONDS,
            keepalive=_KEEPALIVE_SECONDS,
            properties=connect,
            tls_context=tls,
            logger=_SILENT,
        )

    @property
    def resumed(self) -> bool:
        """Whether the broker had a session of ours."""
        return self._client.resumed

    async def open(self, topics: Sequence[str], *, retained: bool) -> None:
        """Connect and subscribe.

        Raises:
            ConnectionError: it cannot be reached, or does not let us in.
            SubscriptionRefusedError: it does not let us listen to one of the topics.
        """
        # 1: what is retained comes with a new subscription alone; 2: never.
        options = SubscribeOptions(qos=1, retainHandling=1 if retained else 2)
        try:
            await self._client.__aenter__()
            codes = [(one, await self._client.subscribe(one, options=options)) for one in topics]
        except (MqttError, OSError, ValueError) as error:
            self._client.abandon()
            raise ConnectionError(_words(error)) from error
        except BaseException:
            self._client.abandon()
            raise
        for topic, answers in codes:
            for code in answers:
                if isinstance(code, ReasonCode) and code.is_failure:
                    await self.close()
                    raise SubscriptionRefusedError(
                        f"the broker refuses the topic {topic!r} ({code}): let its access list allow it"
                    )

    async def receive(self) -> tuple[int, str, bytes]:
        """Return the next message: what it is acknowledged by (0: it is not), its topic and its payload.

        Raises:
            ConnectionError: the connection is over.
        """
        return await self._client.receive()

    def acknowledge(self, number: int) -> None:
        """Say that a message is done with; one that does not reach the broker comes again."""
        if number:
            self._client.acknowledge(number)

    async def close(self) -> None:
        """Say good-bye, if the broker hears it, and let go of the connection; the session stays."""
        with contextlib.suppress(MqttError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._client.__aexit__(None, None, None)
        self._client.abandon()


class _SessionClient(Client):
    """aiomqtt's client, but messages are acknowledged when we say so."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._client.manual_ack_set(True)
        self.resumed = False
        self._received: deque[tuple[int, str, bytes]] = deque()
        self._arrived = asyncio.Event()

    async def receive(self) -> tuple[int, str, bytes]:
        """See `EventConnection`; a call that is cancelled takes nothing."""
        while not self._received:
            if self._disconnected.done():
                why = None if self._disconnected.cancelled() else self._disconnected.exception()
                raise ConnectionError(_words(why) if why else "the broker ended the connection")
            self._arrived.clear()
            waiting = asyncio.ensure_future(self._arrived.wait())
            try:
                await asyncio.wait(
                    (waiting, self._disconnected), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                waiting.cancel()
        return self._received.popleft()

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        del client, userdata
        number = message.mid if message.qos else 0
        if number or len(self._received) < _UNACKNOWLEDGED_MAX:
            self._received.append((number, message.topic, bytes(message.payload)))
            self._arrived.set()

    def acknowledge(self, number: int) -> None:
        with contextlib.suppress(ValueError):
            self._client.ack(number, 1)

    def abandon(self) -> None:
        # paho closes after its DISCONNECT, which may never leave.
        self._client._sock_close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # it was looked at, so asyncio does not complain

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.resumed = flags.session_present
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if not self._connected.done():
            # A broker that hangs up in place of an answer would be waited for until the deadline.
            self._connected.set_exception(MqttError("it hung up before it answered"))


def _words(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__
