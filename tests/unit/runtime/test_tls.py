"""Contexts of TLS, looked at with openssl and used with real connections."""

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.identity.authority import AuthorityError, hosts_of, make_authority
from services.identity.cluster_identity import ClusterIdentity
from shoal.credentials import Credentials
from shoal.tls import ClientTls, client_context, server_context
from tests.kit.programs import program

NOW = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)


@contextlib.asynccontextmanager
async def served(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that says `hello` to whoever it has shaken hands with; yields its port."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.write(b"hello\n")
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def heard(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> bytes:
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name
        )
        with contextlib.closing(writer):
            return await reader.readline()


async def openssl(port: int, folder: Path, bundle: bytes, *arguments: str) -> tuple[int, str]:
    """Shake hands by `openssl s_client`, believing a bundle: its exit code and what it said."""
    (folder / "bundle.pem").write_bytes(bundle)
    process = await asyncio.create_subprocess_exec(
        program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-verify_return_error",
        "-CAfile", str(folder / "bundle.pem"), "-no-CApath", "-no-CAstore", *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode("utf-8", "replace")


def cluster(folder: Path, *, hosts: tuple[str, ...] = ("127.0.0.1", "hub.lan")) -> ClusterIdentity:
    return ClusterIdentity(folder, "c1", "main", lambda: NOW, hosts=hosts)


async def test_openssl_believes_address_and_name_and_nothing_else(tmp_path: Path) -> None:
    identity = cluster(tmp_path)
    async with served(server_context(lambda: identity.credentials)) as port:
        for arguments, good in (
            (("-verify_ip", "127.0.0.1"), True),
            (("-verify_hostname", "hub.lan"), True),
            (("-verify_hostname", "controller.c1.shoal"), True),
            (("-verify_ip", "127.0.0.2"), False),
            (("-verify_hostname", "controller.c2.shoal"), False),
            (("-tls1_2",), True),
            (("-tls1_3",), True),
            (("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"), False),
        ):
            code, said = await openssl(port, tmp_path, identity.bundle, *arguments)
            assert (code == 0) is good, (arguments, said)
        other = make_authority("c2", now=NOW).certificate
        code, said = await openssl(port, tmp_path, other)
        assert code != 0
        assert "unable to get local issuer certificate" in said


async def test_a_renewal_is_served_from_the_next_handshake_on(tmp_path: Path) -> None:
    identity = cluster(tmp_path)
    tls = ClientTls(lambda: identity.bundle)
    async with served(server_context(lambda: identity.credentials)) as port:
        assert await heard(port, tls.context()) == b"hello\n"
        believed_before = tls.context()
        assert tls.context() is believed_before
        second = make_authority("c1", now=NOW)
        identity.add_authority(second)
        assert tls.context() is not believed_before
        assert await heard(port, tls.context()) == b"hello\n"
        identity.use_authority(second.fingerprint)
        with pytest.raises(ssl.SSLCertVerificationError):
            await heard(port, believed_before)
        assert await heard(port, tls.context()) == b"hello\n"


async def test_a_client_that_names_no_host_gets_the_renewed_certificate(tmp_path: Path) -> None:
    first = cluster(tmp_path / "first")
    second = cluster(tmp_path / "second")
    shown: list[Credentials] = [first.credentials]
    async with served(server_context(lambda: shown[0])) as port:
        shown[0] = second.credentials
        code, said = await openssl(port, tmp_path, second.bundle, "-noservername")
        assert code == 0, said


async def test_a_stranger_is_not_believed_with_the_authorities_of_the_web(tmp_path: Path) -> None:
    identity = cluster(tmp_path)
    async with served(server_context(lambda: identity.credentials)) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await heard(port, client_context(b""))
        own = client_context(identity.bundle, web=False)
        assert own.cert_store_stats()["x509_ca"] == 1
        assert await heard(port, own, "controller.c1.shoal") == b"hello\n"


def test_a_controller_that_moves_gets_a_certificate_for_its_new_address(tmp_path: Path) -> None:
    first = cluster(tmp_path, hosts=("10.0.0.1",)).credentials
    assert cluster(tmp_path, hosts=("10.0.0.1",)).credentials == first
    assert cluster(tmp_path, hosts=("10.0.0.2",)).credentials.certificate != first.certificate


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("fe80::1", "fe80::1"),
        ("hub.lan", "hub.lan"),
        ("b\u00fccher.lan", "xn--bcher-kva.lan"),
    ],
)
def test_any_host_stands_in_the_certificate(tmp_path: Path, host: str, told: str) -> None:
    certificate = cluster(tmp_path, hosts=(host,)).credentials.certificate
    assert set(hosts_of(certificate)) == {told, "controller.c1.shoal"}
    # And it is found there again, so that each start does not renew it.
    assert cluster(tmp_path, hosts=(host,)).credentials.certificate == certificate


@pytest.mark.parametrize("host", ["a" * 70 + ".lan", "a..b"])
def test_what_is_no_host_is_refused_with_its_option(tmp_path: Path, host: str) -> None:
    with pytest.raises(AuthorityError, match="choose another --advertise"):
        cluster(tmp_path, hosts=(host,))
