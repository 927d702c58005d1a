"""One connection to an MQTT broker, from CONNECT to its end.

Sources: MQTT 5.0 (OASIS), section 3.4 (PUBACK) and 3.1.3.2 (will); aiomqtt 2.5 and paho-mqtt 2.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from aiomqtt import Client, MqttError, ProtocolVersion, Will
from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from services.events.broker_url import BrokerAddress
from services.events.entry import CONTENT_TYPE, TOPIC_ROOT, Entry, envelope

AT_LEAST_ONCE = 1
GOODBYE_SECONDS = 2.0


class LinkLostError(Exception):
    """The broker cannot be reached, refuses, or is gone; the message says which."""


class BrokerLink:
    """A connection; `hold` it once, publish while it is held.

    Args:
        address: where the broker stands.
        client_id: who we are; a second connection with the same id ends the first.
        timeout_seconds: how long the broker may take to answer anything.
        keepalive_seconds: how long the connection may be silent before it is asked.

    Raises:
        LinkLostError: when the CA file cannot be used.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        timeout_seconds: float = 10.0,
        keepalive_seconds: int = 10,
    ) -> None:
        self._address = address
        self._state_topic = f"{TOPIC_ROOT}/controllers/{client_id}/state"
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._client = _Client(
            self._fail,
            _tls(address) if address.tls else None,
            hostname=address.host,
            port=address.port,
            username=address.username or None,
            password=address.password or None,
            identifier=client_id,
            # 5.0, since a broker of 3.1.1 cannot say that it refuses a message.
            protocol=ProtocolVersion.V5,
            clean_start=True,
            timeout=timeout_seconds,
            keepalive=keepalive_seconds,
            will=Will(self._state_topic, _presence("offline"), AT_LEAST_ONCE, retain=True),
        )
        # Our window says how many are on their way; aiomqtt only warns.
        self._client.pending_calls_threshold = 1_000_000

    async def hold(self, connected: asyncio.Event) -> None:
        """Connect, set `connected`, and stay until the connection ends.

        Raises:
            LinkLostError: always, unless it is cancelled.
        """
        try:
            async with self._client:
                listening = asyncio.ensure_future(self._listen())
                try:
                    await self._say_online(listening)
                    connected.set()
                    reason = await self._ended(listening)
                except asyncio.CancelledError:
                    await self._say_goodbye()
                    raise
                finally:
                    listening.cancel()
        except (MqttError, OSError, ValueError) as error:
            raise LinkLostError(str(error) or type(error).__name__) from error
        raise LinkLostError(reason)

    async def publish(self, entry: Entry) -> None:
        """Publish one event on both of its topics and wait for both acknowledgements.

        Raises:
            LinkLostError: when they did not come; the link ends then.
        """
        payload = envelope(entry)
        try:
            await self._publish(entry.events_topic, payload, retain=False)
            await self._publish(entry.state_topic, payload, retain=True)
        except (MqttError, ValueError) as error:
            reason = f"event {entry.id} was not acknowledged: {error}"
            self._fail(reason)
            raise LinkLostError(reason) from error

    async def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = CONTENT_TYPE
        await self._client.publish(topic, payload, AT_LEAST_ONCE, retain, properties)

    async def _say_goodbye(self) -> None:
        """Say `offline` ourselves: a broker that is left in good order sends no will."""
        with suppress(MqttError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._publish(self._state_topic, _presence("offline"), retain=True)

    async def _say_online(self, listening: asyncio.Future[str]) -> None:
        """Publish our presence, or notice that the connection is gone already."""
        saying = asyncio.ensure_future(
            self._publish(self._state_topic, _presence("online"), retain=True)
        )
        try:
            await asyncio.wait(
                (saying, listening, self._failed), return_when=asyncio.FIRST_COMPLETED
            )
            if not saying.done():
                raise LinkLostError(await self._ended(listening))
            await saying
        finally:
            saying.cancel()

    async def _ended(self, listening: asyncio.Future[str]) -> str:
        await asyncio.wait((listening, self._failed), return_when=asyncio.FIRST_COMPLETED)
        return self._failed.result() if self._failed.done() else await listening

    async def _listen(self) -> str:
        # Nothing is subscribed to; this ends when the connection does.
        try:
            async for _ in self._client.messages:
                pass
        except MqttError as error:
            return f"the connection broke: {error.__cause__ or error}"
        return "the broker ended the connection"

    def _fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_result(reason)


class _Client(Client):
    """aiomqtt's client, but a refusal is no acknowledgement, and no connection is left behind."""

    def __init__(self, refused: Callable[[str], None], tls: "_Tls | None", **settings: Any) -> None:
        super().__init__(tls_context=tls, **settings)
        self._refused = refused
        self._tls = tls

    async def __aenter__(self) -> Self:
        disconnected = self._disconnected
        try:
            await super().__aenter__()
            if disconnected.done():  # in one breath with the acceptance, and forgotten since
                raise MqttError("the connection broke at once") from disconnected.exception()
        except BaseException:
            # A broker that accepts and says nothing would be left connected, once for each try.
            self._abandon()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._client.socket() is not None:
            # A broker that does not answer any more does not answer a good-bye either.
            with suppress(MqttError, TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await super().__aexit__(exc_type, exc, tb)
        self._abandon()

    def _on_publish(
        self,
        client: mqtt.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        if reason_code.is_failure:
            # Whoever waits for it goes on waiting until the link ends, which is now.
            self._refused(f"the broker refuses a message: {reason_code}")
        else:
            super()._on_publish(client, userdata, mid, reason_code, properties)

    def _abandon(self) -> None:
        # paho closes after its DISCONNECT, which may never leave; and when reading raises, as it
        # does with TLS, aiomqtt goes on being woken by a socket that nobody closes.
        self._client._sock_close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if self._tls is not None:
            self._tls.close_socket()
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # somebody has looked, so asyncio does not complain


def _presence(state: str) -> bytes:
    return json.dumps({"state": state}).encode()


class _Tls(ssl.SSLContext):
    """Verifies the broker, and remembers its socket: paho forgets one whose handshake failed."""

    _socket: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._socket = super().wrap_socket(*args, **kwargs)
        return self._socket

    def close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _tls(address: BrokerAddress) -> _Tls:
    context = _Tls(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if address.ca_file:
            context.load_verify_locations(address.ca_file)
        else:
            context.load_default_certs()
    except OSError as error:
        raise LinkLostError(f"the CA file {address.ca_file} cannot be used: {error}") from error
    return context
