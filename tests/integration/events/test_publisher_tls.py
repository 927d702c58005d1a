"""The publisher on a broker that speaks TLS."""

import asyncio
import datetime as dt
import ipaddress
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.events.broker_url import parse_url
from services.events.publisher import Publisher
from tests.integration.events.test_publisher import MemoryRows, publisher_at, running
from tests.kit.mosquitto import Mosquitto
from tests.kit.until import until


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that is its own authority; returns it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "broker.pem", folder / "broker.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[tuple[Mosquitto, Path]]:
    certificate, key = write_certificate(tmp_path)
    mosquitto = Mosquitto(
        tmp_path / "mosquitto",
        f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}",
    )
    await asyncio.to_thread(mosquitto.start)
    try:
        yield mosquitto, certificate
    finally:
        mosquitto.stop()


def says(publishing: Publisher, words: str) -> bool:
    return words in publishing.sentence("")


async def test_events_leave_over_tls(broker: tuple[Mosquitto, Path]) -> None:
    mosquitto, certificate = broker
    rows = MemoryRows()
    rows.add("pipelines/p")
    url = f"mqtts://127.0.0.1:{mosquitto.port}?ca={certificate}"
    async with running(publisher_at(rows, parse_url(url))):
        await until(lambda: not rows.rows, 20, "an empty outbox")


async def test_a_broker_that_cannot_be_trusted_gets_nothing(
    broker: tuple[Mosquitto, Path],
) -> None:
    mosquitto, _ = broker
    rows = MemoryRows()
    rows.add("pipelines/p")
    for url, words in (
        (f"mqtts://127.0.0.1:{mosquitto.port}", "certificate verify failed"),
        (f"mqtts://127.0.0.1:{mosquitto.port}?ca=/nowhere.pem", "No such file"),
        (f"mqtt://127.0.0.1:{mosquitto.port}", "unreachable"),
    ):
        async with running(publisher_at(rows, parse_url(url))) as publishing:
            await until(partial(says, publishing, words), 20, words)
    assert len(rows.rows) == 1
