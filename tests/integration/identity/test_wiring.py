"""A controller with an identity serves whoever proves one of its cluster, over mutual TLS."""

import datetime as dt
from pathlib import Path

import grpc.aio
import pytest

from edge_agent.links.session import dial_session
from services.identity.authority import Authority, AuthorityError, make_authority
from services.identity.cluster_identity import ClusterIdentity, read_authority
from shoal.channel import USER, channel_options, open_channel
from shoal.credentials import (
    AUTHORITIES_FILE,
    Credentials,
    CredentialsError,
    make_credentials,
    read_credentials,
    write_credentials,
)
from shoal.identity import Identity, Role
from shoal.signing_request import new_key, signing_request
from shoal.v1 import nodes_service_pb2, nodes_service_pb2_grpc, session_service_pb2
from tests.kit.running_controller import running_controller


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def credentials(state: Path, role: Role, name: str) -> Credentials:
    """Sign with the authority in the state folder of a controller that runs."""
    folder = state / "identity"
    cluster = (folder / "cluster").read_text()
    own = ClusterIdentity(folder, cluster, "controller", now)
    key = new_key()
    certificate = own.issue(signing_request(key, name), Identity(cluster, role, name))
    return make_credentials(key, certificate, own.bundle)


async def list_nodes(address: str, proof: Credentials | None) -> None:
    async with open_channel(address, channel_options(USER), proof) as channel:
        stub = nodes_service_pb2_grpc.NodesServiceStub(channel)
        await stub.ListNodes(nodes_service_pb2.ListNodesRequest(), timeout=10)


async def test_who_proves_an_identity_of_the_cluster_is_served(tmp_path: Path) -> None:
    async with running_controller(tmp_path, insecure=False) as addresses:
        await list_nodes(addresses.grpc, credentials(tmp_path, Role.OPERATOR, "ann"))


async def test_who_proves_nothing_or_another_cluster_is_not_served(tmp_path: Path) -> None:
    async with running_controller(tmp_path, insecure=False) as addresses:
        stranger = ClusterIdentity(tmp_path / "x", "other", "controller", now).credentials
        for proof in (None, stranger):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await list_nodes(addresses.grpc, proof)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_session_is_dialled_with_the_identity_of_a_node(tmp_path: Path) -> None:
    async with running_controller(tmp_path, insecure=False) as addresses:
        node = credentials(tmp_path, Role.NODE, "cam-1")
        async with dial_session(addresses.grpc, node) as call:
            await call.write(session_service_pb2.ConnectRequest(sequence=1))
            assert (await call.code(), await call.details()) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first message has to be Hello",
            )


async def test_a_cluster_keeps_its_identity_and_takes_an_authority_of_its_owner(
    tmp_path: Path,
) -> None:
    own: Authority = make_authority("acme", now=now())
    async with running_controller(tmp_path, insecure=False, authority=own):
        signing = (tmp_path / "identity" / "signing").read_text()
    assert signing == own.fingerprint
    kept = tmp_path / "identity" / "authorities" / f"{own.fingerprint}.pem"
    assert read_authority(kept.read_bytes()) == own
    async with running_controller(tmp_path, insecure=False) as addresses:
        await list_nodes(addresses.grpc, credentials(tmp_path, Role.VIEWER, "ann"))


@pytest.mark.parametrize("name", ["cluster", "tickets.key", "gossip.key", "signing"])
@pytest.mark.parametrize("half", [b"", b"\xff" * 7])
def test_a_broken_file_of_an_identity_is_named(name: str, half: bytes, tmp_path: Path) -> None:
    ClusterIdentity(tmp_path, "c1", "controller", now)
    (tmp_path / name).write_bytes(half)
    with pytest.raises(AuthorityError, match="put"):
        ClusterIdentity(tmp_path, "c1", "controller", now)


@pytest.mark.parametrize("half", [b"", bytes(600), b"-----BEGIN CERTIFICATE-----\nMIIB"])
def test_credentials_that_name_no_authority_are_not_believed(half: bytes, tmp_path: Path) -> None:
    proof = ClusterIdentity(tmp_path / "cluster", "c1", "controller", now).credentials
    write_credentials(tmp_path, proof)
    assert read_credentials(tmp_path) == proof
    (tmp_path / AUTHORITIES_FILE).write_bytes(half)
    with pytest.raises(CredentialsError, match="join again"):
        read_credentials(tmp_path)
