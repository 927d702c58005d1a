"""What a client is told where it and a controller do not believe each other; real servers, real certificates."""

import datetime as dt
from pathlib import Path

import grpc.aio
import pytest

from services.identity.authority import Authority, make_authority
from services.runtime.rpc import bind, server_options
from shoal.channel import USER
from shoal.client import Client
from shoal.credentials import Credentials, make_credentials
from shoal.errors import HandshakeError
from shoal.identity import Identity, Role
from shoal.signing_request import new_key, signing_request
from tests.kit.running_controller import running_controller

LONG_AGO = dt.timedelta(days=800)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def proof(
    signer: Authority,
    identity: Identity,
    *,
    believes: Authority | None = None,
    age: dt.timedelta = dt.timedelta(),
) -> Credentials:
    key = new_key()
    certificate = signer.issue(signing_request(key, identity.name), identity, now=now() - age)
    return make_credentials(key, certificate, (believes or signer).certificate)


async def told(address: str, credentials: Credentials | None) -> str:
    async with Client(address, credentials=credentials, deadline_seconds=20) as client:
        with pytest.raises(HandshakeError) as refused:
            await client.nodes()
    return refused.value.message


async def test_a_client_with_an_identity_is_answered(tmp_path: Path) -> None:
    own = make_authority("acme", now=now())
    async with running_controller(tmp_path, insecure=False, authority=own) as addresses:
        cluster = (tmp_path / "identity" / "cluster").read_text()
        ann = proof(own, Identity(cluster, Role.OPERATOR, "ann"))
        async with Client(addresses.grpc, credentials=ann) as client:
            assert not await client.nodes()


async def test_a_client_is_told_why_a_controller_with_identity_does_not_answer(
    tmp_path: Path,
) -> None:
    own, other = make_authority("acme", now=now()), make_authority("acme", now=now())
    async with running_controller(tmp_path, insecure=False, authority=own) as addresses:
        cluster = (tmp_path / "identity" / "cluster").read_text()
        ann = Identity(cluster, Role.OPERATOR, "ann")
        elsewhere = Identity("c2", Role.OPERATOR, "ann")
        where = addresses.grpc
        assert "wants proof of who calls" in await told(where, None)
        assert "is over since" in await told(where, proof(own, ann, age=LONG_AGO))
        assert "another cluster than your identity" in await told(where, proof(other, ann))
        assert "is not its controller" in await told(where, proof(own, elsewhere))
        unbelieved = proof(other, ann, believes=own)
        assert "does not believe your certificate" in await told(where, unbelieved)
        board = proof(own, Identity(cluster, Role.NODE, "cam-1"), age=LONG_AGO)
        assert "shoal agent --token-file" in await told(where, board)


async def test_a_client_with_an_identity_talks_to_no_controller_without(tmp_path: Path) -> None:
    own = make_authority("acme", now=now())
    async with running_controller(tmp_path) as addresses:
        ann = proof(own, Identity("c1", Role.OPERATOR, "ann"))
        said = await told(addresses.grpc, ann)
        assert "started with --insecure" in said
        assert f"shoal logout --controller {addresses.grpc}" in said
        board = proof(own, Identity("c1", Role.NODE, "cam-1"))
        assert "start the agent with --insecure" in await told(addresses.grpc, board)


async def test_a_controller_whose_certificate_is_over_is_told_beside_the_clock() -> None:
    own = make_authority("acme", now=now())
    over = proof(own, Identity("c1", Role.CONTROLLER, "main"), age=LONG_AGO)
    server = grpc.aio.server(options=server_options(USER))
    port = bind(server, "127.0.0.1:0", lambda: over)
    await server.start()
    try:
        ann = proof(own, Identity("c1", Role.OPERATOR, "ann"))
        assert "set the clock if it is wrong" in await told(f"127.0.0.1:{port}", ann)
    finally:
        await server.stop(0)
