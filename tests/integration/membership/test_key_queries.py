"""T5: what a stranger on the network can make real members do about their keys: nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.membership.codec import MessageCodec
from services.membership.fields import host_to_octets
from services.membership.keyring import Keyring
from services.membership.message import Address, User
from services.membership.packet import PacketFormat
from services.membership.serf import keys
from services.membership.serf.message import (
    Query,
    QueryResponse,
    Relayed,
    SerfMessage,
    decode_serf,
    encode_serf,
)
from services.membership.stream import StreamFormat
from tests.kit.controller_process import ControllerProcess
from tests.kit.gossip import running, states
from tests.kit.until import until

KEY, EVIL, NEW = b"k" * 16, b"e" * 16, b"n" * 16
ACK = 1
NO_BROADCAST = 2


@dataclass
class Stranger:
    """Somebody with a socket, who keeps what reaches it; sealed only where a test says so."""

    socket: socket.socket
    heard: list[tuple[QueryResponse, bool]] = field(
        default_factory=list[tuple[QueryResponse, bool]]
    )
    asked: int = 0

    def query(self, name: str, payload: bytes = b"", flags: int = NO_BROADCAST) -> Query:
        """A query that wants its answer here."""
        self.asked += 1
        host, port = self.socket.getsockname()
        return Query(
            5, 1000 + self.asked, host_to_octets(host), port, "stranger", (), flags, 0, 30.0,
            name, payload,
        )  # fmt: skip

    def send(self, to: Address, message: SerfMessage, *ring: bytes) -> None:
        """Send a datagram."""
        data = form(*ring).wrap((User(encode_serf(message)),), checksum=False)
        self.socket.sendto(data, to)

    async def dial(self, to: Address, message: SerfMessage) -> None:
        """Send it over a plain stream, and wait until the member is done with it."""
        stream = StreamFormat(MessageCodec(), Keyring(), nonce=os.urandom)
        reader, writer = await asyncio.open_connection(*to)
        plain = b"".join(stream.encode(User(encode_serf(message))))
        writer.write(stream.wrap(plain, dialled=True))
        await reader.read()
        writer.close()

    async def answers(self, query: Query) -> list[tuple[QueryResponse, bool]]:
        """What was said to a query, and whether it came sealed; one answer at least."""

        def said() -> list[tuple[QueryResponse, bool]]:
            return [pair for pair in self.heard if pair[0].identity == query.identity]

        return await until(said, 10, f"an answer to {query.name}")

    def read(self) -> None:
        """Keep a datagram."""
        data = self.socket.recv(65536)
        messages, _, sealed = form(KEY, NEW, EVIL).unwrap(data)
        for message in messages:
            said = decode_serf(message.payload) if isinstance(message, User) else None
            if isinstance(said, QueryResponse):
                self.heard.append((said, sealed))


def form(*ring: bytes) -> PacketFormat:
    keyring = Keyring(ring, verify_incoming=False)
    return PacketFormat(MessageCodec(), keyring, nonce=os.urandom)


@contextlib.asynccontextmanager
async def stranger_on_the_network() -> AsyncIterator[Stranger]:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.setblocking(False)
        stranger = Stranger(opened)
        loop.add_reader(opened, stranger.read)
        try:
            yield stranger
        finally:
            loop.remove_reader(opened)


@pytest.mark.parametrize("mode", ["hear", "speak", "require"])
async def test_t5_a_stranger_neither_learns_nor_changes_a_key(tmp_path: Path, mode: str) -> None:
    """Datagram, stream and relay, to a real controller and through it to a second member."""
    sealing = Keyring([KEY], verify_incoming=mode == "require", verify_outgoing=mode != "hear")
    encoded = base64.b64encode(KEY).decode()
    async with (
        ControllerProcess(
            tmp_path,
            "--gossip-encryption",
            mode,
            environ={"SHOAL_CONTROLLER_GOSSIP_KEY": encoded},
        ) as controller,
        running("second", keyring=sealing, seeds=(controller.gossip,)) as second,
        stranger_on_the_network() as stranger,
    ):
        await until(lambda: len(states(second)) == 2, 10, "both are known")
        host, port = controller.gossip.split(":")
        member = Address(host, int(port))
        there = host_to_octets(second.address.host)

        def relayed(query: Query) -> Relayed:
            return Relayed(there, second.address.port, "second", encode_serf(query))

        plain = [
            (keys.LIST, b""),
            (keys.INSTALL, keys.encode_key_request(EVIL)),
            (keys.USE, keys.encode_key_request(EVIL)),
            (keys.REMOVE, keys.encode_key_request(KEY)),
        ]
        for name, payload in plain:
            stranger.send(member, stranger.query(name, payload, ACK))
            stranger.send(member, relayed(stranger.query(name, payload, ACK)))
            await stranger.dial(member, stranger.query(name, payload, ACK))
        # What is sealed shows that all of that was read, on both ways: datagrams keep their order.
        direct, through = (stranger.query(keys.PING, flags=ACK | NO_BROADCAST) for _ in range(2))
        stranger.send(member, direct, KEY)
        stranger.send(member, relayed(through), KEY)
        await stranger.answers(direct)
        await stranger.answers(through)
        assert {said.identity for said, _ in stranger.heard} == {direct.identity, through.identity}
        assert list(second.keyring.keys) == [KEY]
        assert controller.log().count("not_encrypted") == 1, controller.log()

        # Sealed, the same is answered, and the answer is sealed though the member may send plain.
        listed = stranger.query(keys.LIST)
        stranger.send(member, listed, KEY)
        ((answer, sealed),) = await stranger.answers(listed)
        assert keys.decode_key_answer(answer.payload).keys == (encoded,)
        assert sealed
        install = stranger.query(keys.INSTALL, keys.encode_key_request(NEW), 0)
        stranger.send(member, install, KEY)
        assert keys.decode_key_answer((await stranger.answers(install))[0][0].payload).ok
        if mode != "hear":  # one that sends plain passes no key on
            await until(
                lambda: list(second.keyring.keys) == [KEY, NEW], 10, "the key at the second"
            )
