"""One connection to an MQTT broker, from CONNECT to its end.

Sources: MQTT 5.0 (OASIS), section 3.4 (PUBACK) and 3.1.3.2 (will); aiomqtt 2.5 and paho-mqtt 2.
"""

import asyncio
import functools
import json
import logging
import os
import ssl
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from aiomqtt import Client, MqttCodeError, MqttError, ProtocolVersion, Will
from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from services.events.broken_link import why_refused, why_unreachable
from services.events.broker_link import LinkLostError, RefusedMessageError
from services.events.broker_url import BrokerAddress
from services.events.entry import CONTENT_TYPE, TOPIC_ROOT, OutboxEntry, fitted
from services.events.pace import Pace
from services.events.terms import (
    EVENT_BYTES_MAX,
    NEVER,
    PACKET_TOO_LARGE,
    QUOTA_EXCEEDED,
    UNKNOWN,
    Terms,
)
from services.runtime.secret_option import SecretFileError, first_line

JSON_TYPE = "application/json"
_LEAST_BYTES = 512
_KEEPALIVE_SECONDS = 10
"""How long the connection may be silent before it is asked."""
_SHORTER_BITS = 3
_PROPERTY_BYTES = 3 + len(CONTENT_TYPE) + 5  # the type of the content, and when it expires
GOODBYE_SECONDS = 2.0
_SILENT = logging.getLogger(f"{__name__}.paho")
_SILENT.disabled = True


class MqttLink:
    """A connection to an MQTT broker; `hold` it once, publish while it is held.

    Args:
        address: where the broker stands.
        client_id: our name at the broker; a second connection with the same id ends the first.
        timeout_seconds: how long the broker may take to answer anything.
        terms: what is known of the broker; a connection that stands knows more.

    Raises:
        LinkLostError: when a file that the address names cannot be used.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        timeout_seconds: float = 10.0,
        terms: Terms = UNKNOWN,
    ) -> None:
        self._state_topic = f"{TOPIC_ROOT}/controllers/{client_id}/state"
        self._address = address
        self._failed: asyncio.Future[LinkLostError] = asyncio.get_running_loop().create_future()
        self._tls = tls_context(address) if address.tls else None
        self._client = _Client(
            terms,
            self._tls,
            hostname=address.host,
            port=address.port,
            username=address.username or None,
            password=broker_password(address) or None,
            identifier=client_id,
            # 5.0, since a broker of 3.1.1 cannot say that it refuses a message.
            protocol=ProtocolVersion.V5,
            clean_start=True,
            timeout=timeout_seconds,
            keepalive=_KEEPALIVE_SECONDS,
            will=Will(
                self._state_topic, _presence("offline"), min(1, terms.qos), retain=terms.retain
            ),
        )
        # Our window says how many are on their way; aiomqtt only warns.
        self._client.pending_calls_threshold = 1_000_000

    @property
    def terms(self) -> Terms:
        """What the broker takes, as far as it has said."""
        return self._client.terms

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
            raise self._lost(error) from error
        raise reason

    async def publish(self, entry: OutboxEntry, losses: int = 0) -> str:
        """Publish one event on both of its topics and wait for both acknowledgements.

        It is cut to what the broker takes, and to less from the second of `losses` links on that
        broke with it. Its state is a copy for clients that come later: where that
        alone is refused, the event has arrived, and this returns why; else it returns nothing.

        Raises:
            RefusedMessageError: the broker does not take the event.
            LinkLostError: no acknowledgement came; the link ends then.
        """
        if entry.topic:
            await self._publish_message(entry)
            return ""
        topics = (entry.events_topic, entry.state_topic)
        room = self.terms.payload_bytes(topics, _PROPERTY_BYTES)
        if losses > 1:
            room = min(room, max(_LEAST_BYTES, EVENT_BYTES_MAX >> _SHORTER_BITS * (losses - 1)))
        try:
            while True:
                payload = fitted(entry, room)
                if payload is None:
                    why = f"not even cut does it fit into the {room} bytes that the broker takes"
                    raise RefusedMessageError(why, final=True)
                code = await self._publish(entry.events_topic, payload, retain=False)
                if code is None or code.value != PACKET_TOO_LARGE or len(payload) < _LEAST_BYTES:
                    break
                room = len(payload) // 2  # it does not say what it would take
            if code is not None:
                final = code.value in NEVER or code.value == PACKET_TOO_LARGE
                raise RefusedMessageError(f"the broker refuses it: {code}", final=final)
            denied = await self._publish(
                entry.state_topic, payload, retain=True, expiry_seconds=entry.retained_seconds
            )
        except (MqttError, ValueError) as error:
            lost = LinkLostError(f"event {entry.id} was not acknowledged: {error}")
            self._fail(lost)
            raise lost from error
        if denied is not None and denied.value == QUOTA_EXCEEDED:
            # Left out, the state before this one would stand there until the next event, perhaps for ever.
            raise RefusedMessageError(f"the broker refuses its state: {denied}", final=False)
        return "" if denied is None else f"it refuses {entry.state_topic}: {denied}"

    async def _publish_message(self, entry: OutboxEntry) -> None:
        """Publish data as it is; one that the broker does not take whole is refused."""
        try:
            code = await self._publish(
                entry.topic, entry.data_json.encode(), retain=entry.kept, content_type=JSON_TYPE
            )
        except (MqttError, ValueError) as error:
            lost = LinkLostError(f"message {entry.id} was not acknowledged: {error}")
            self._fail(lost)
            raise lost from error
        if code is not None:
            final = code.value in NEVER or code.value == PACKET_TOO_LARGE
            why = f"the broker refuses it on the topic {entry.topic}: {code}"
            raise RefusedMessageError(why, final=final)

    async def _publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool,
        expiry_seconds: int = 0,
        content_type: str = CONTENT_TYPE,
    ) -> ReasonCode | None:
        """Publish a message, and return why it was refused; None when it was taken."""
        properties = _properties(content_type, expiry_seconds)
        return await self._client.send(topic, payload, properties, retain=retain)

    async def _say_goodbye(self) -> None:
        """Say `offline` ourselves: a broker that is left in good order sends no will."""
        with suppress(MqttError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._publish(self._state_topic, _presence("offline"), retain=True)

    async def _say_online(self, listening: asyncio.Future[LinkLostError]) -> None:
        """Publish our presence, or notice that the connection is gone already."""
        saying = asyncio.ensure_future(
            self._publish(self._state_topic, _presence("online"), retain=True)
        )
        try:
            await asyncio.wait(
                (saying, listening, self._failed), return_when=asyncio.FIRST_COMPLETED
            )
            if not saying.done():
                raise await self._ended(listening)
            await saying
        finally:
            saying.cancel()

    async def _ended(self, listening: asyncio.Future[LinkLostError]) -> LinkLostError:
        # What the broker says at the end is more than that an event was not acknowledged.
        await asyncio.wait((listening, self._failed), return_when=asyncio.FIRST_COMPLETED)
        return await listening if listening.done() else self._failed.result()

    async def _listen(self) -> LinkLostError:
        # Nothing is subscribed to; this ends when the connection does.
        try:
            async for _ in self._client.messages:
                pass
        except MqttError as error:
            return self._lost(error)
        return LinkLostError("the broker ended the connection")

    def _lost(self, error: Exception) -> LinkLostError:
        """Say for people what ended the connection, or why there was none."""
        broke = self._tls.broke if self._tls is not None else None
        for cause in (broke, error, error.__cause__, error.__context__):
            code = cause.rc if isinstance(cause, MqttCodeError) else None
            if isinstance(code, ReasonCode) and code.value:
                return LinkLostError(why_refused(code.value, str(code), self._address), code.value)
            if isinstance(cause, OSError):
                return LinkLostError(why_unreachable(cause, self._address))
        return LinkLostError(
            f"the connection broke: {error.__cause__ or str(error) or type(error).__name__}"
        )

    def _fail(self, lost: LinkLostError) -> None:
        if not self._failed.done():
            self._failed.set_result(lost)


@functools.cache
def _properties(content_type: str, expiry_seconds: int) -> Properties:
    """What goes with a message; the library only reads it, and takes longer to make it than to send it."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = content_type
    if expiry_seconds:
        properties.MessageExpiryInterval = expiry_seconds
    return properties


class _Client(Client):
    """aiomqtt's client, but a refusal is no acknowledgement, and no connection is left behind."""

    def __init__(self, terms: Terms, tls: "_Tls | None", **settings: Any) -> None:
        # What paho logs of a connection that breaks is said by us, once, and with the remedy.
        super().__init__(tls_context=tls, logger=_SILENT, **settings)
        self.terms = terms
        self._tls = tls
        self._sent: dict[int, asyncio.Future[ReasonCode]] = {}
        self._turns = asyncio.Semaphore(terms.in_flight)
        self._pace = Pace(terms.messages_a_second, terms.bytes_a_second)

    async def send(
        self, topic: str, payload: bytes, properties: Properties, *, retain: bool
    ) -> ReasonCode | None:
        """Publish a message, and return why it was refused; None when it was taken.

        Raises:
            MqttError: nothing was said about it.
        """
        async with self._turns:
            now = asyncio.get_running_loop().time()
            if (wait := self._pace.wait_seconds(len(payload), now)) > 0:
                await asyncio.sleep(wait)
            terms = self.terms
            sent = self._client.publish(
                topic, payload, min(1, terms.qos), retain and terms.retain, properties
            )
            if sent.rc != mqtt.MQTT_ERR_SUCCESS:
                raise MqttError(f"could not publish: {mqtt.error_string(sent.rc)}")
            if terms.qos < 1:
                return None
            answer = self._sent[sent.mid] = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self.timeout):
                    code = await answer
            except TimeoutError:
                raise MqttError("the broker did not answer in time") from None
            finally:
                self._sent.pop(sent.mid, None)
        return code if code.is_failure else None

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
        del client, userdata, properties
        answer = self._sent.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if properties is not None and not reason_code.is_failure:
            known = self.terms
            self.terms = replace(
                known,
                packet_bytes=getattr(properties, "MaximumPacketSize", 0),
                retain=known.retain and bool(getattr(properties, "RetainAvailable", 1)),
                qos=min(known.qos, getattr(properties, "MaximumQoS", 1)),
                in_flight=min(known.in_flight, getattr(properties, "ReceiveMaximum", 1 << 16)),
            )
            self._turns = asyncio.Semaphore(self.terms.in_flight)
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

    def _abandon(self) -> None:
        # paho closes after its DISCONNECT, which may never leave; and when reading raises, as it
        # does with TLS, aiomqtt goes on being woken by a socket that is never closed.
        self._client._sock_close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if self._tls is not None:
            self._tls.close_socket()
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # it was looked at, so asyncio does not complain


def _presence(state: str) -> bytes:
    return json.dumps({"state": state}).encode()


class _TlsSocket(ssl.SSLSocket):
    """Tells its context why reading failed: paho only says that it did."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if isinstance(self.context, _Tls):
                self.context.broke = error
            raise


class _Tls(ssl.SSLContext):
    """Verifies the broker, and remembers its socket: paho forgets one whose handshake failed."""

    sslsocket_class = _TlsSocket

    _socket: ssl.SSLSocket | None = None
    broke: ssl.SSLError | None = None
    """What ended the connection, where TLS did: with TLS 1.3 a client is refused after its handshake."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._socket = super().wrap_socket(*args, **kwargs)
        return self._socket

    def close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def broker_password(address: BrokerAddress) -> str:
    """Return the password for a broker; empty for none.

    Raises:
        LinkLostError: its file cannot be used.
    """
    if address.password_file is None:
        return address.password
    try:
        return first_line(address.password_file)
    except SecretFileError as error:
        raise LinkLostError(f"--mqtt-password-file: {error}") from error


def tls_context(address: BrokerAddress) -> _Tls:
    """Make what TLS to a broker needs.

    Raises:
        LinkLostError: a file that its address names cannot be used.
    """
    context = _Tls(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if address.ca_file:
            context.load_verify_locations(address.ca_file)
        else:
            context.load_default_certs()
    except OSError as error:
        raise LinkLostError(f"the CA file {address.ca_file} cannot be used: {error}") from error
    if address.alpn:
        context.set_alpn_protocols([address.alpn])
    if address.certificate_file:
        _load_own(context, address)
    return context


def _load_own(context: ssl.SSLContext, address: BrokerAddress) -> None:
    certificate, key = address.certificate_file, address.key_file

    def locked() -> str:
        raise LinkLostError(
            f"the key file {key} is locked with a passphrase: give one without (openssl pkey -in {key} -out NEW), and "
            "let only the controller's user read it"
        )

    try:
        context.load_cert_chain(certificate, key, locked)
    except ssl.SSLError as error:
        raise LinkLostError(
            f"the certificate {certificate} and the key file {key} cannot be used: {_unusable(error)}"
        ) from error
    except OSError as error:
        missing = next((path for path in (certificate, key) if not os.access(path, os.R_OK)), key)
        raise LinkLostError(f"the file {missing} cannot be read: {error.strerror}") from error


def _unusable(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate"
    return f"one of them is no PEM file ({error.reason or error})"
