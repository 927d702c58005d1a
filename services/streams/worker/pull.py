"""Both ends of a Pull call: one lane between two workers.

Rules for grpc.aio that are kept here: one long-lived task reads, and never under a timeout, which
would cancel the call; `read` and `write` only; what `write` returns is no delivery, which is why
the machines count acknowledgements. A dead peer is found by keepalive.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from weakref import WeakSet

import grpc
import grpc.aio

from services.runtime.log import CountedLog, fields
from services.runtime.rpc import STREAM_MESSAGE_BYTES_MAX
from services.runtime.stream_address import reached
from services.streams import effects, events
from services.streams.checksum import extended
from services.streams.part import ranges
from services.streams.worker.call import (
    BROKEN_CALL,
    PeerConnection,
    PeerUnknownError,
    PullCall,
    ServerContext,
)
from services.streams.worker.lane_dial import LaneDial
from services.streams.worker.lane_protocols import ENCODED, REFUSED
from services.streams.worker.lane_registry import Post, ReadPiece
from services.streams.worker.node_proof import NodeProof
from services.streams.worker.producer_proof import serial_at
from services.streams.worker.spool import SpoolGoneError
from services.streams.worker.wire import (
    PULL,
    in_memory,
    read_message,
    write_block,
    write_parts,
)
from shoal.channel import STREAM, channel_options, open_channel
from shoal.identity import Role, dns_name
from shoal.limits import WHOLE_BYTES_MAX
from shoal.v1 import streams_service_pb2 as v1

LOG = logging.getLogger(__name__)

_UNPROVEN = ("handshake", "Verification")
"""What gRPC says of a connection that failed for what its ends have to prove has one of these words."""


class ServedCall:
    """A consumer's call as the producer's worker holds it.

    Args:
        number: the machine's name for it.
        opened: what the consumer said first.
        post: takes events.
        context: of the call.
        client: whether the consumer may be a client, which alone says `done`.
    """

    parts = True
    """A large block is read and sent part by part."""

    def __init__(
        self,
        number: int,
        opened: v1.PullOpen,
        post: Post,
        context: ServerContext,
        *,
        client: bool = True,
    ) -> None:
        self._client = client
        self.number = number
        self._lane = opened.lane
        self._post = post
        self._context = context
        # At most an answer, a block, an end and a close: the machine waits for each block to leave.
        self._outgoing: deque[tuple[bytes | AsyncGenerator[bytes], bool]] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    def accept(self, producer_epoch: int, first: int) -> None:
        """See `Served`."""
        self._send(
            v1.PullResponse(
                accept=v1.PullAccept(producer_epoch=producer_epoch, first=first, protocols=ENCODED)
            )
        )

    def send_block(self, effect: effects.SendBlock) -> None:
        """See `Served`."""
        size = len(effect.body)
        if size > WHOLE_BYTES_MAX:
            self._outgoing.append((self._large(effect), True))
        else:
            self._outgoing.append((write_block(effect.header, effect.body), True))
        self._wake.set()

    def send_spooled(self, effect: effects.SendSpooled, read: ReadPiece) -> None:
        """See `Served`."""
        self._outgoing.append((write_parts(effect.header, effect.place.length, read), True))
        self._wake.set()

    def send_end(self, effect: effects.SendEnd) -> None:
        """See `Served`."""
        digest = None if effect.digest is None else v1.PullDigest(**asdict(effect.digest))
        end = v1.PullEnd(
            total=effect.total, cut=effect.cut, continued=effect.continued, digest=digest
        )
        self._send(v1.PullResponse(end=end))

    def refuse(self, reason: str, message: str) -> None:
        """See `Served`."""
        self._send(v1.PullResponse(refusal=v1.PullRefusal(reason=reason, message=message)))
        self.close()

    def close(self) -> None:
        """See `Served`. Of a large block no further part is sent."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """See `Served`."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            try:
                await self._write()
            except BROKEN_CALL:
                return  # the consumer dials again
            finally:
                reading.cancel()

    def _send(self, message: v1.PullResponse) -> None:
        self._outgoing.append((message.SerializeToString(), False))
        self._wake.set()

    async def _write(self) -> None:
        while True:
            while self._outgoing:
                message, block = self._outgoing.popleft()
                if isinstance(message, bytes):
                    await self._context.write(message)
                elif not await self._write_parts(message):
                    return
                if block:
                    self._post(events.CallReady(self.number, self._lane))
            if self._closing:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _large(self, effect: effects.SendBlock) -> AsyncGenerator[bytes]:
        """Yield the messages of a large block; its checksum is reckoned in pieces, too."""
        retained, body = effect.retained, effect.body
        if retained.crc is None:
            crc = 0
            for offset, length in ranges(len(body)):
                crc = extended(crc, bytes(memoryview(body)[offset : offset + length]))
                await asyncio.sleep(0)
            retained.crc = crc
        async with contextlib.aclosing(
            write_parts(effect.header, len(body), in_memory(body))
        ) as parts:
            async for part in parts:
                yield part

    async def _write_parts(self, parts: AsyncGenerator[bytes]) -> bool:
        """Write one part after the other, and say whether they were all of the block."""
        async with contextlib.aclosing(parts):
            try:
                async for part in parts:
                    # Between two parts others have their turn: calls, acknowledgements, ports.
                    await self._context.write(part)
                    if self._closing:
                        return False
            except SpoolGoneError:
                return False
        return True

    async def _read(self) -> None:
        try:
            while True:
                request = await self._context.read()
                if request is grpc.aio.EOF:
                    break
                ack = cast("v1.PullRequest", request).ack
                if ack.done and not self._client:
                    self.refuse("NOT_A_CLIENT", f"the ticket for lane {self._lane} is no client's")
                    return
                if ack.done:
                    self._post(events.CallDone(self.number, self._lane))
                    continue
                self._post(
                    events.CallAcknowledged(
                        self.number, self._lane, ack.consumed, ack.released, ack.consumed_bytes
                    )
                )
        except BROKEN_CALL:
            pass
        self.close()


class DialledCall(LaneDial):
    """A call that we open to the producer's worker; `run` carries it.

    Args:
        effect: which dial of the machine this is.
        opened: the first message to the producer.
        post: takes events.
        refusals: counts what one of the ends could not prove.
    """

    broken = False
    """Whether the connection failed, and not only this lane."""

    def __init__(
        self, effect: effects.DialLane, opened: v1.PullOpen, post: Post, refusals: CountedLog
    ) -> None:
        super().__init__(effect, opened, post)
        self._refusals = refusals

    async def run(self, connection: PeerConnection) -> None:
        """Carry the call until it breaks, which is posted, or until this is cancelled."""
        call = connection.pull()
        try:
            reason, message = await self._until_broken(call)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connection.cut or task is None or task.cancelling():
                raise
            self.broken = True
            reason, message = "TICKET", "the producer's node does not prove itself any more"
        finally:
            call.cancel()
        if reason in {"TICKET", REFUSED}:
            self._refusals.warn("a lane is refused", lane=self._opened.lane, why=message)
        elif self.broken and any(word in message for word in _UNPROVEN):
            self._refusals.warn("a peer did not prove itself", lane=self._opened.lane, why=message)
        self._ended(reason, message)

    async def _until_broken(self, call: PullCall) -> tuple[str, str]:
        try:
            return await self._carry(call)
        except* BROKEN_CALL as group:
            self.broken = True
            words = _words(group.exceptions[0])
        return "UNAVAILABLE", words

    async def _carry(self, call: PullCall) -> tuple[str, str]:
        async with asyncio.TaskGroup() as tasks:
            await call.write(v1.PullRequest(open=self._opened))
            writing = tasks.create_task(
                self._write(lambda ack: call.write(v1.PullRequest(ack=ack)))
            )
            try:
                return await self._read(call.read, producer="the producer's worker")
            finally:
                writing.cancel()


@dataclass(slots=True)
class Shared:
    """A channel and how many lanes are open on it."""

    key: tuple[str, str, bool]
    channel: grpc.aio.Channel
    users: int = 0
    cut: bool = False
    calls: WeakSet[Any] = field(default_factory=WeakSet[Any])

    def pull(self) -> PullCall:
        """See `PeerConnection`."""
        call: Any = self.channel.stream_stream(
            PULL,
            request_serializer=v1.PullRequest.SerializeToString,
            response_deserializer=read_message,
        )()
        self.calls.add(call)
        return cast("PullCall", call)

    def end(self) -> None:
        """End all calls, which see by `cut` why."""
        self.cut = True
        for call in tuple(self.calls):
            call.cancel()


class Channels:
    """One or two channels for each peer that lanes are open to; they close with their last lane.

    The second one is for lanes with large records. It is a connection of its own, so that small
    records and acknowledgements do not wait in the buffers that the large ones fill.

    Args:
        proof: what this end proves; None in a cluster without identity.
    """

    def __init__(self, proof: NodeProof | None = None) -> None:
        self._proof = proof
        self._channels: dict[tuple[str, str, bool], Shared] = {}

    async def take(self, address: str, *, node: str, bulk: bool) -> Shared:
        """Return a channel to a node at an address; give it back with `leave`.

        Raises:
            PeerUnknownError: which node it is has to be known, and is not; or it streams otherwise, or
                its certificate was revoked.
            OSError: it does not answer.
        """
        key = (address, node, bulk)
        if key not in self._channels:
            await self._check(address, node)
        shared = self._channels.get(key)
        if shared is None:
            shared = self._channels[key] = Shared(key, self._open(address, node))
        shared.users += 1
        return shared

    async def check_again(self, *, authorities_changed: bool) -> None:
        """Leave the peers that do not prove themselves any more; something else is trusted now."""
        known = tuple(self._channels.values())
        await asyncio.gather(*(self._check_shared(one, authorities_changed) for one in known))

    async def _check_shared(self, shared: Shared, authorities_changed: bool) -> None:  # noqa: FBT001
        address, node, _ = shared.key
        try:
            await self._check(address, node, ask=authorities_changed)
        except (PeerUnknownError, OSError) as error:
            LOG.warning("a peer is left", extra=fields(node=node, address=address, why=error))
            if self._channels.get(shared.key) is shared:
                del self._channels[shared.key]
            shared.end()

    async def _check(self, address: str, node: str, *, ask: bool = False) -> None:
        """Refuse a node whose certificate was revoked; while none is, it is asked only with `ask`."""
        proof, (dialled, clear) = self._proof, reached(address)
        if proof is None or clear or not node or not proof.proven:
            return
        if not ask and not proof.leave.revoked:
            return
        own = proof.credentials
        expect = dns_name(own.identity.cluster, Role.NODE, node)
        if await serial_at(dialled, expect, own.authorities) in proof.leave.revoked:
            raise PeerUnknownError(f"the certificate of node/{node} was revoked")

    def _open(self, address: str, node: str) -> grpc.aio.Channel:
        options = channel_options(STREAM, message_bytes_max=STREAM_MESSAGE_BYTES_MAX)
        dialled, clear = reached(address)
        proof = self._proof
        if proof is None:
            return open_channel(dialled, options)
        if not node:
            raise PeerUnknownError(f"the lane to {dialled} has no ticket: which node is there?")
        if clear is proof.proven:
            theirs, ours = ("ticket", "mutual") if clear else ("mutual", "ticket")
            raise PeerUnknownError(
                f"node {node} streams with --streams-security {theirs}, and this node with {ours}: "
                "start both agents with the same"
            )
        if clear:
            return open_channel(dialled, options)
        expect = dns_name(proof.credentials.identity.cluster, Role.NODE, node)
        return open_channel(dialled, options, proof.credentials, expect=expect)

    async def leave(self, connection: PeerConnection, *, broken: bool) -> None:
        """Give a channel back.

        A broken one is not used again: gRPC would wait up to two seconds before it connects anew,
        and how often we try is for our own backoff to say.
        """
        shared = cast("Shared", connection)
        shared.users -= 1
        if (broken or not shared.users) and self._channels.get(shared.key) is shared:
            del self._channels[shared.key]
        if not shared.users:
            await shared.channel.close()


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return repr(error)
