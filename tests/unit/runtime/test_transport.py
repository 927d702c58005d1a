"""Ports and channels that prove who is at both ends, with certificates of a real authority."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from services.identity.authority import Authority, make_authority
from services.identity.cluster_identity import ClusterIdentity
from services.runtime.peer import peer_of
from services.runtime.rpc import bind, server_options
from shoal.channel import USER, channel_options, open_channel
from shoal.credentials import Credentials, make_credentials, read_credentials, write_credentials
from shoal.identity import Identity, Role
from shoal.signing_request import new_key, signing_request

NOW = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)


def credentials_for(authority: Authority, identity: Identity) -> Credentials:
    key = new_key()
    certificate = authority.issue(
        signing_request(key, "any"), identity, now=dt.datetime.now(dt.UTC)
    )
    return make_credentials(key, certificate, authority.certificate)


async def answer(_request: bytes, context: Any) -> bytes:
    """Return the identity of the caller."""
    peer = peer_of(context)
    return b"" if peer is None else peer.identity.uri.encode()


async def call(channel: grpc.aio.Channel) -> str:
    async with channel:
        method: Any = cast("Any", channel).unary_unary("/x/Y")
        return bytes(await method(b"", timeout=10)).decode()


@pytest.fixture
def authority() -> Authority:
    return make_authority("c1", now=NOW)


async def served(identity: Callable[[], Credentials]) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server(options=server_options(USER))
    method = cast("Any", grpc).unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x", {"Y": method}),))
    port = bind(server, "127.0.0.1:0", identity)
    await server.start()
    return server, f"127.0.0.1:{port}"


async def test_both_ends_prove_themselves(authority: Authority) -> None:
    controller = credentials_for(authority, Identity("c1", Role.CONTROLLER, "main"))
    node = credentials_for(authority, Identity("c1", Role.NODE, "cam-1"))
    server, address = await served(lambda: controller)
    try:
        said = await call(open_channel(address, channel_options(USER), node))
        assert said == "spiffe://c1/node/cam-1"
    finally:
        await server.stop(0)


async def test_who_proves_another_name_or_authority_or_nothing_is_refused(
    authority: Authority,
) -> None:
    node = credentials_for(authority, Identity("c1", Role.NODE, "cam-1"))
    other = credentials_for(make_authority("c2", now=NOW), Identity("c2", Role.NODE, "cam-1"))
    server, address = await served(lambda: node)
    options = channel_options(USER)
    try:
        expect = node.identity.dns
        assert await call(open_channel(address, options, node, expect=expect)) == node.identity.uri
        for channel in (
            open_channel(address, options, node),  # expects a controller
            open_channel(address, options, node, expect="cam-2.node.c1.shoal"),
            open_channel(address, options, other, expect=expect),
            open_channel(address, options),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(channel)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)


async def test_a_renewal_takes_effect_while_the_server_runs(authority: Authority) -> None:
    identity = Identity("c1", Role.CONTROLLER, "main")
    now = [credentials_for(authority, identity)]
    operator = credentials_for(authority, Identity("c1", Role.OPERATOR, "ann"))
    server, address = await served(lambda: now[0])
    try:
        await call(open_channel(address, channel_options(USER), operator))
        second = make_authority("c1", now=NOW)
        now[0] = credentials_for(second, identity)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(open_channel(address, channel_options(USER), operator))
        operator = credentials_for(second, Identity("c1", Role.OPERATOR, "ann"))
        await call(open_channel(address, channel_options(USER), operator))
    finally:
        await server.stop(0)


def test_a_controller_finds_its_identity_again(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    first = ClusterIdentity(tmp_path, "c1", "main", lambda: NOW)
    again = ClusterIdentity(tmp_path, "c1", "main", lambda: NOW)
    assert again.bundle == first.bundle
    assert again.credentials == first.credentials
    assert again.gossip_key == first.gossip_key
    assert again.signer.public_key == first.signer.public_key
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path, *tmp_path.rglob("*")))


def test_an_authority_takes_over_from_another(tmp_path: Path) -> None:
    identity = ClusterIdentity(tmp_path, "c1", "main", lambda: NOW)
    first = identity.signing
    second = make_authority("c1", now=NOW)
    identity.add_authority(second)
    assert identity.signing == first
    assert identity.bundle == first.certificate + second.certificate
    identity.use_authority(second.fingerprint)
    assert identity.signing == second
    identity.remove_authority(first.fingerprint)
    assert identity.bundle == second.certificate
    assert ClusterIdentity(tmp_path, "c1", "main", lambda: NOW).credentials == identity.credentials


def test_credentials_are_read_as_they_were_written(authority: Authority, tmp_path: Path) -> None:
    credentials = credentials_for(authority, Identity("c1", Role.VIEWER, "ann", "lab"))
    write_credentials(tmp_path / "x", credentials)
    assert read_credentials(tmp_path / "x") == credentials
    assert read_credentials(tmp_path / "y") is None
