"""Newcomers join over HTTPS with a token that an operator made, and are refused with the reason otherwise."""

import asyncio
import contextlib
import random
import ssl
import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from control.controller import ControllerAddresses
from control.front.newcomers import CONNECTIONS_OF_ONE_MAX, HANDSHAKE_SECONDS, REQUESTS_MAX
from shoal.channel import USER, channel_options, open_channel
from shoal.credentials import Credentials
from shoal.identity import Role
from shoal.join_token import parse_token
from shoal.joining import Joined, JoiningError, join
from shoal.signing_request import new_key
from shoal.v1 import identity_service_pb2 as v1
from shoal.v1 import identity_service_pb2_grpc as v1_grpc
from tests.integration.identity.test_wiring import credentials
from tests.kit.running_controller import running_controller

NEWCOMERS = ThreadPoolExecutor(16)


@dataclass(frozen=True)
class Cluster:
    """A controller, and its identities as an operator reaches them."""

    addresses: ControllerAddresses
    state: Path
    identities: Any
    operator: Credentials

    async def token(self, **said: Any) -> str:
        fields: dict[str, Any] = {"role": v1.ROLE_NODE, "name_pattern": "cam-*", **said}
        request = v1.CreateTokenRequest(**fields)
        answer = await self.identities.CreateToken(request, timeout=10)
        return str(answer.word)

    async def join(self, word: str, name: str = "cam-1", **said: Any) -> Joined:
        # Not on the threads of the loop, which are those of the controller in this process.
        call = partial(join, self.addresses.newcomers, parse_token(word), name, **said)
        return await asyncio.get_running_loop().run_in_executor(NEWCOMERS, call)

    async def refused(self, word: str, name: str = "cam-1", **said: Any) -> JoiningError:
        with pytest.raises(JoiningError) as error:
            await self.join(word, name, **said)
        assert word.rpartition(".")[2] not in str(error.value)
        return error.value


@contextlib.asynccontextmanager
async def running(state: Path, **settings: Any) -> AsyncIterator[Cluster]:
    settings = {"insecure": False, "newcomers": "127.0.0.1:0", **settings}
    async with running_controller(state, **settings) as addresses:
        operator = credentials(state, Role.OPERATOR, "ann")
        async with open_channel(addresses.grpc, channel_options(USER), operator) as channel:
            yield Cluster(addresses, state, v1_grpc.IdentityServiceStub(channel), operator)


async def test_a_token_is_taken_for_a_certificate_and_then_used_up(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        word = await cluster.token()
        joined = await cluster.join(word)
        own = joined.credentials.identity
        assert (own.role, own.name) == (Role.NODE, "cam-1")
        assert joined.trust.authorities == joined.credentials.authorities
        assert len(joined.trust.ticket_keys) == 1
        error = await cluster.refused(word, "cam-2")
        assert "was used as often as it may be" in str(error)
        assert not error.passing
        listed = await cluster.identities.ListTokens(v1.ListTokensRequest(), timeout=10)
        assert not listed.tokens
        listed = await cluster.identities.ListCertificates(v1.ListCertificatesRequest(), timeout=10)
        assert [one.identity.name for one in listed.certificates] == ["cam-1", "local"]
        word = await cluster.token(role=v1.ROLE_VIEWER, name_pattern="", namespace="lab")
        viewer = (await cluster.join(word, "bob")).credentials
        async with open_channel(cluster.addresses.grpc, channel_options(USER), viewer) as channel:
            caller = await v1_grpc.IdentityServiceStub(channel).GetCaller(
                v1.GetCallerRequest(), timeout=10
            )
        assert caller.identity == v1.Identity(role=v1.ROLE_VIEWER, name="bob", namespace="lab")
        assert caller.cluster_id == own.cluster


async def test_of_many_who_take_a_token_at_once_one_gets_a_certificate(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        word = await cluster.token()
        names = [f"cam-{number}" for number in range(12)]
        answers = await asyncio.gather(
            *(cluster.join(word, name) for name in names), return_exceptions=True
        )
        assert sum(isinstance(answer, Joined) for answer in answers) == 1
        refused = [str(answer) for answer in answers if not isinstance(answer, Joined)]
        assert all("was used as often as it may be" in text for text in refused)


async def test_an_answer_that_was_lost_is_given_again_for_the_same_key(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        word, key = await cluster.token(), new_key()
        first = await cluster.join(word, key=key)
        assert (await cluster.join(word, key=key)).credentials == first.credentials


@pytest.mark.parametrize(
    ("said", "name", "why"),
    [
        ({}, "mic-1", "is for names that fit"),
        ({}, "Cam 1", "is for names that fit"),
        ({"role": v1.ROLE_OPERATOR}, "cam-1", "a node without a namespace was asked for"),
        ({"ttl": Duration(nanos=1000)}, "cam-1", "ended at"),
    ],
)
async def test_a_token_is_taken_for_what_it_says_alone(
    said: dict[str, Any], name: str, why: str, tmp_path: Path
) -> None:
    async with running(tmp_path) as cluster:
        error = await cluster.refused(await cluster.token(**said), name, role=Role.NODE)
        assert why in str(error)


async def test_tokens_survive_a_restart_and_end_when_they_are_revoked(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        kept, ended = await cluster.token(), await cluster.token()
        await cluster.identities.RevokeToken(
            v1.RevokeTokenRequest(id=parse_token(ended).id), timeout=10
        )
    assert not any(
        parse_token(kept).secret.encode() in path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )
    async with running(tmp_path) as cluster:
        assert "there is no join token" in str(await cluster.refused(ended))
        assert (await cluster.join(kept)).credentials.identity.name == "cam-1"


async def test_a_token_of_another_cluster_is_not_sent(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as one, running(tmp_path / "b") as other:
        error = await other.refused(await one.token())
        assert "does not show the authority of the token" in str(error)


async def test_openssl_verifies_what_is_issued_and_finds_nothing_before_tls_1_2(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "state") as cluster:
        joined = await cluster.join(await cluster.token())
        authorities, own = tmp_path / "authorities.pem", tmp_path / "own.pem"
        authorities.write_bytes(joined.credentials.authorities)
        own.write_bytes(joined.credentials.certificate)
        key = tmp_path / "key.pem"
        key.write_bytes(joined.credentials.key)
        for purpose in ("sslclient", "sslserver"):
            await openssl("verify", "-purpose", purpose, "-CAfile", authorities, own)
        controller = tmp_path / "state" / "identity" / "identity.pem"
        await openssl("verify", "-x509_strict", "-CAfile", authorities, controller)
        text = await openssl("x509", "-in", own, "-noout", "-text")
        assert "Not Before: Jan  1 00:00:01 1970" in text
        assert f"URI:{joined.credentials.identity.uri}" in text
        assert f"DNS:{joined.credentials.identity.dns}" in text
        for address in (cluster.addresses.newcomers, cluster.addresses.grpc):
            words = [
                "s_client",
                "-connect",
                address,
                "-CAfile",
                authorities,
                "-cert",
                own,
                "-key",
                key,
            ]
            for version in ("-tls1_2", "-tls1_3"):
                said = await openssl(*words, version, "-verify_return_error", "-alpn", "h2")
                assert "Verification: OK" in said
            assert await openssl_fails(*words, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")


async def openssl(*words: object) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        ["openssl", *map(str, words)],
        input="",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def openssl_fails(*words: object) -> bool:
    with pytest.raises(AssertionError):
        await openssl(*words)
    return True


async def test_random_bytes_and_slow_clients_end_their_connection_alone(tmp_path: Path) -> None:
    rng = random.Random(7)
    async with running(tmp_path) as cluster:
        host, _, port = cluster.addresses.newcomers.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        for _ in range(200):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(rng.randbytes(rng.choice([1, 5, 100, 5000])))
            with contextlib.suppress(ConnectionError):
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 60)
            writer.close()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(100):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            head = rng.choice(
                [b"", b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"]
            )
            writer.write(head + rng.randbytes(1000))
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(1), 60)
            writer.close()
        assert (await cluster.join(await cluster.token())).credentials.identity.name == "cam-1"
        for _, writer in silent:
            writer.close()


async def test_one_address_that_holds_many_connections_keeps_no_newcomer_out(
    tmp_path: Path,
) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with running(tmp_path) as cluster:
        host, _, port = cluster.addresses.newcomers.rpartition(":")
        held = [
            await asyncio.open_connection(host, int(port), ssl=context, local_addr=("127.0.0.2", 0))
            for _ in range(CONNECTIONS_OF_ONE_MAX)
        ]
        for _ in range(20):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await asyncio.open_connection(
                    host, int(port), ssl=context, local_addr=("127.0.0.2", 0)
                )
        assert not any(reader.at_eof() for reader, _ in held)
        assert (await cluster.join(await cluster.token())).credentials.identity.name == "cam-1"
        for _, writer in held:
            writer.close()


async def test_handshakes_that_are_never_finished_are_bounded_and_keep_nobody_out(
    tmp_path: Path,
) -> None:
    """A stranger that dials and says nothing takes no descriptor beyond its share."""
    async with running(tmp_path) as cluster:
        host, _, port = cluster.addresses.newcomers.rpartition(":")
        held = [
            await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0))
            for _ in range(CONNECTIONS_OF_ONE_MAX + 40)
        ]
        for reader, _ in held[CONNECTIONS_OF_ONE_MAX:]:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 40) == b""
        assert (await cluster.join(await cluster.token())).credentials.identity.name == "cam-1"
        # Their time is over, and the address is let in again.
        for reader, _ in held[:CONNECTIONS_OF_ONE_MAX]:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10 * HANDSHAKE_SECONDS) == b""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, again = await asyncio.open_connection(
            host, int(port), ssl=context, local_addr=("127.0.0.2", 0)
        )
        for writer in (again, *(writer for _, writer in held)):
            writer.close()


async def test_requests_that_come_slowly_take_no_turn_of_others(tmp_path: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = (
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 900\r\n\r\n"
    )
    async with running(tmp_path) as cluster:
        word = await cluster.token()
        host, _, port = cluster.addresses.newcomers.rpartition(":")
        held = [
            await asyncio.open_connection(host, int(port), ssl=context, local_addr=("127.0.0.2", 0))
            for _ in range(REQUESTS_MAX + 4)
        ]
        for reader, writer in held:
            writer.write(head)
            assert b"100" in await asyncio.wait_for(reader.readline(), 10)  # it waits for the body
        assert (await cluster.join(word, timeout_seconds=8)).credentials.identity.name == "cam-1"
        for _, writer in held:
            writer.close()


async def test_with_insecure_there_are_no_identities_and_that_is_said(tmp_path: Path) -> None:
    async with running_controller(tmp_path) as addresses:
        assert addresses.newcomers == ""
        async with open_channel(addresses.grpc, channel_options(USER)) as channel:
            stub = v1_grpc.IdentityServiceStub(channel)
            caller = await stub.GetCaller(v1.GetCallerRequest(), timeout=10)
            assert caller.cluster_id
            assert not caller.HasField("identity")
            with pytest.raises(Exception, match="--insecure"):
                await stub.CreateToken(v1.CreateTokenRequest(role=v1.ROLE_NODE), timeout=10)
