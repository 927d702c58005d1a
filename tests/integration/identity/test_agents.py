"""Agents as real processes join a real controller with a token, and need it never again."""

import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc.aio
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from shoal.channel import USER, channel_options, open_channel
from shoal.credentials import (
    AUTHORITIES_FILE,
    IDENTITY_FILE,
    read_credentials,
    write_private,
)
from shoal.signing_request import new_key
from shoal.v1 import identity_service_pb2 as v1
from shoal.v1 import nodes_service_pb2, nodes_service_pb2_grpc
from tests.integration.identity.test_newcomers import Cluster, running
from tests.kit.agent_process import AgentProcess
from tests.kit.until import until


class Board(AgentProcess):
    """An agent that joins."""

    def __init__(
        self,
        cluster: Cluster,
        *extra: str,
        name: str = "cam-1",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            cluster.addresses.grpc,
            "--no-insecure", "--newcomers", cluster.addresses.newcomers, *extra,
            name=name,
            environ=environ,
        )  # fmt: skip

    def take(self, word: str) -> None:
        """Put a token on the board."""
        self.token_file.write_text(f"{word}\n")
        self.token_file.chmod(0o600)

    @property
    def token_file(self) -> Path:
        return self.state / "token"

    def begin(self, *extra: str) -> None:
        self.start("--token-file", str(self.token_file), *extra)

    async def ask(self, *extra: str) -> tuple[int, str]:
        """Start it where it will not run for long."""
        return await self.call(*self._extra, *extra)

    def said(self) -> str:
        return (self.state / "agent.log").read_text(errors="replace")


@contextlib.asynccontextmanager
async def board(
    cluster: Cluster, *extra: str, name: str = "cam-1", environ: Mapping[str, str] | None = None
) -> AsyncIterator[Board]:
    one = Board(cluster, *extra, name=name, environ=environ)
    try:
        yield one
    finally:
        await one.__aexit__()


async def connected(cluster: Cluster, name: str = "cam-1") -> bool:
    async with open_channel(
        cluster.addresses.grpc, channel_options(USER), cluster.operator
    ) as channel:
        stub = nodes_service_pb2_grpc.NodesServiceStub(channel)
        answer = await stub.ListNodes(nodes_service_pb2.ListNodesRequest(), timeout=10)
    return any(node.connected for node in answer.nodes if node.name == name)


async def not_connected(cluster: Cluster, name: str = "cam-1") -> bool:
    return not await connected(cluster, name)


async def revoke(cluster: Cluster, name: str = "cam-1") -> int:
    request = v1.RevokeIdentityRequest(identity=v1.Identity(role=v1.ROLE_NODE, name=name))
    answer = await cluster.identities.RevokeIdentity(request, timeout=10)
    return int(answer.certificates)


def certificate(one: Board) -> x509.Certificate:
    found = read_credentials(one.state / "identity")
    assert found is not None
    return x509.load_pem_x509_certificate(found.certificate)


def authorities(one: Board) -> list[x509.Certificate]:
    data = (one.state / "identity" / AUTHORITIES_FILE).read_bytes()
    return x509.load_pem_x509_certificates(data)


def is_signed_by_the_first(one: Board) -> bool:
    try:
        certificate(one).verify_directly_issued_by(authorities(one)[0])
    except InvalidSignature:
        return False
    return True


async def test_a_board_joins_with_a_token_that_it_needs_never_again(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, board(cluster) as cam:
        cam.take(await cluster.token())
        cam.begin()
        await until(lambda: connected(cluster))
        folder = cam.state / "identity"
        files = {path.name for path in folder.iterdir()}
        assert files == {
            "identity.pem", "authorities.pem", "trust.json", "gossip.keyring", "token.id",
        }  # fmt: skip
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
        assert folder.stat().st_mode & 0o077 == 0
        cam.token_file.unlink()
        cam.kill()
        await until(lambda: not_connected(cluster))
        cam.begin()
        await until(lambda: connected(cluster))


REVOKED_SECONDS = 1.0
"""What is promised; a test waits ten times as long."""


async def test_a_board_that_is_revoked_is_out_at_once_and_after_restarts(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as boards:
        # A lease so long that it is not what ends the session.
        async with running(tmp_path, lease_seconds=600.0, heartbeat_seconds=1.0) as cluster:
            cam = await boards.enter_async_context(board(cluster))
            cam.take(await cluster.token(uses=2))
            cam.begin()
            await until(lambda: connected(cluster))
            assert await revoke(cluster) == 1
            await until(lambda: not_connected(cluster), 10 * REVOKED_SECONDS)
            await until(lambda: " revoked" in cam.said())
            cam.kill()
            grpc_at, newcomers_at = cluster.addresses.grpc, cluster.addresses.newcomers
        async with running(tmp_path, grpc=grpc_at, newcomers=newcomers_at) as cluster:
            refusals = cam.said().count("refuses this agent")
            cam.begin()
            await until(lambda: cam.said().count("refuses this agent") > refusals)
            assert await not_connected(cluster)
            # The token that it has is good for one more use and brings it nothing; a new one does.
            cam.kill()
            cam.take(await cluster.token())
            cam.begin()
            await until(lambda: connected(cluster))


async def test_a_board_whose_disk_was_wiped_joins_again(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, board(cluster) as cam, board(cluster) as again:
        for one in (cam, again):
            one.take(await cluster.token())
        cam.begin()
        await until(lambda: connected(cluster))
        again.begin()
        await until(lambda: "is connected now, with another key" in again.said())
        cam.kill()
        await until(lambda: connected(cluster) if "has joined" in again.said() else no())
        listed = await cluster.identities.ListCertificates(
            v1.ListCertificatesRequest(role=v1.ROLE_NODE), timeout=10
        )
        assert [one.HasField("revoke_time") for one in listed.certificates] == [False, True]


async def no() -> bool:
    return False


async def test_a_certificate_is_renewed_by_the_clock_of_the_controller(tmp_path: Path) -> None:
    ahead = [0.0]
    async with (
        running(tmp_path, wall=lambda: time.time() + ahead[0]) as cluster,
        board(cluster) as cam,
    ):
        cam.take(await cluster.token())
        cam.begin()
        await until(lambda: connected(cluster))
        first = certificate(cam)
        cam.kill()
        await until(lambda: not_connected(cluster))
        cam.begin()
        await until(lambda: connected(cluster))
        assert certificate(cam) == first
        ahead[0] = 300 * 86400.0
        cam.kill()
        cam.begin()
        await until(lambda: certificate(cam) != first)
        renewed = certificate(cam)
        assert renewed.not_valid_after_utc - first.not_valid_after_utc > dt.timedelta(days=299)
        assert renewed.public_key() != first.public_key()
        cam.kill()
        await until(lambda: not_connected(cluster))
        cam.begin()
        await until(lambda: connected(cluster))
        assert certificate(cam) == renewed


async def test_an_authority_takes_over_while_a_board_stays_connected(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, board(cluster) as cam:
        cam.take(await cluster.token())
        cam.begin()
        await until(lambda: connected(cluster))
        identities = cluster.identities
        (old,) = (
            await identities.ListAuthorities(v1.ListAuthoritiesRequest(), timeout=10)
        ).authorities
        assert (old.signs, old.certificates) == (True, 2)  # the board and the local operator
        first = certificate(cam)
        added = (await identities.AddAuthority(v1.AddAuthorityRequest(), timeout=10)).authority
        await until(lambda: len(authorities(cam)) == 2)
        assert certificate(cam) == first
        request = v1.UseAuthorityRequest(fingerprint=added.fingerprint[:10])
        await identities.UseAuthority(request, timeout=10)
        await until(lambda: certificate(cam) != first)
        await until(lambda: is_signed_by_the_first(cam))
        listed = (
            await identities.ListAuthorities(v1.ListAuthoritiesRequest(), timeout=10)
        ).authorities
        assert [(one.fingerprint, one.signs, one.certificates) for one in listed] == [
            (added.fingerprint, True, 2),
            (old.fingerprint, False, 0),
        ]
        assert cam.said().count("session opened") == 1
        with pytest.raises(grpc.aio.AioRpcError, match="signs"):
            await identities.RemoveAuthority(
                v1.RemoveAuthorityRequest(fingerprint=added.fingerprint), timeout=10
            )
        await identities.RemoveAuthority(
            v1.RemoveAuthorityRequest(fingerprint=old.fingerprint), timeout=10
        )
        # The session was opened with a certificate that is good no more; it dials with the one that it has now.
        await until(lambda: cam.said().count("session opened") == 2)
        await until(lambda: len(authorities(cam)) == 1)
        cam.kill()
        cam.begin()
        await until(lambda: cam.said().count("session opened") == 3)


async def test_a_board_says_why_it_waits_and_what_is_wrong(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "a") as other,
        running(tmp_path / "b") as cluster,
        board(cluster) as cam,
    ):
        code, said = await cam.ask()
        assert code == 2
        assert "shoal token create --role node" in said
        cam.take(await other.token())
        code, said = await cam.ask("--token-file", str(cam.token_file))
        assert (code, "does not show the authority of the token" in said) == (2, True)
        cam.take(await cluster.token(role=v1.ROLE_OPERATOR))
        code, said = await cam.ask("--token-file", str(cam.token_file))
        assert (code, "a node without a namespace was asked for" in said) == (2, True)
        cam.take(await cluster.token(name_pattern="mic-*"))
        code, said = await cam.ask("--token-file", str(cam.token_file))
        assert (code, "is for names that fit 'mic-*'" in said) == (2, True)
        assert not (cam.state / "identity" / IDENTITY_FILE).exists()


async def test_a_board_waits_for_its_controller_and_says_so(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as boards:
        async with running(tmp_path) as cluster:
            cam = await boards.enter_async_context(board(cluster))
            cam.take(await cluster.token())
            addresses = cluster.addresses
        cam.begin()
        await until(lambda: "waiting to join the cluster" in cam.said())
        assert "no controller answers newcomers" in cam.said()
        again = running(tmp_path, grpc=addresses.grpc, newcomers=addresses.newcomers)
        async with again as cluster:
            await until(lambda: connected(cluster))


async def test_a_board_whose_answer_was_lost_gets_the_same_certificate(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, board(cluster) as cam:
        word, key = await cluster.token(), new_key()
        lost = await cluster.join(word, key=key)
        folder = cam.state / "identity"
        folder.mkdir(mode=0o700)
        write_private(folder / "joining.key", key)
        cam.take(word)
        cam.begin()
        await until(lambda: connected(cluster))
        kept = read_credentials(folder)
        assert kept == lost.credentials
        assert not (folder / "joining.key").exists()


@pytest.mark.parametrize("half", [b"", bytes(241), b"-----BEGIN PRIVATE KEY-----\nMIGHAgEA"])
async def test_a_board_whose_key_to_join_with_is_half_written_makes_another_one(
    half: bytes, tmp_path: Path
) -> None:
    async with running(tmp_path) as cluster, board(cluster) as cam:
        folder = cam.state / "identity"
        folder.mkdir(mode=0o700)
        write_private(folder / "joining.key", half)
        cam.take(await cluster.token())
        cam.begin()
        await until(lambda: connected(cluster))
        assert not (folder / "joining.key").exists()
