"""Beyond loopback figures are told to who proves that it may read all namespaces."""

import datetime as dt
import ssl
import time
from pathlib import Path

import aiohttp
import pytest

from services.identity.authority import serial_of
from services.identity.cluster_identity import ClusterIdentity
from services.metrics.figure import Figure, FigureKind, Readings
from services.metrics.page import MetricsPage
from services.metrics.reader_proof import ReaderProof
from shoal.identity import Role
from shoal.tls import client_context
from tests.kit.controller_credentials import credentials_of
from tests.kit.running_controller import running_controller

SECRET = Figure("shoal_x", FigureKind.GAUGE, "Something.")


def _tls(folder: Path, state: Path, role: Role, name: str, namespace: str = "") -> ssl.SSLContext:
    proof = credentials_of(state, role, name, namespace)
    file = folder / f"{name}.pem"
    file.write_bytes(proof.key + proof.certificate)
    context = client_context(proof.authorities, web=False)
    context.load_cert_chain(file)
    return context


async def _status(
    session: aiohttp.ClientSession, url: str, tls: ssl.SSLContext | None = None
) -> tuple[int, str]:
    async with session.get(url, ssl=tls or True) as answer:
        return answer.status, await answer.text()


async def test_readers_beyond_loopback(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with (
        running_controller(state, insecure=False, metrics="0.0.0.0:0") as addresses,
        aiohttp.ClientSession() as session,
    ):
        url = f"https://127.0.0.1:{addresses.metrics.rpartition(':')[2]}/metrics"
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))
        viewer = credentials_of(state, Role.VIEWER, "prometheus")
        unproved = client_context(viewer.authorities, web=False)
        with pytest.raises(aiohttp.ClientError):
            await session.get(url, ssl=unproved)
        for role in (Role.VIEWER, Role.SUBMITTER, Role.OPERATOR, Role.GATEWAY):
            tls = _tls(tmp_path, state, role, f"a-{role}")
            status, text = await _status(session, url, tls)
            assert status == 200, text
            assert "shoal_controller_leads 1.0" in text
        for role, namespace in ((Role.NODE, ""), (Role.VIEWER, "lab"), (Role.SUBMITTER, "lab")):
            tls = _tls(tmp_path, state, role, f"b-{role}", namespace)
            status, text = await _status(session, url, tls)
            assert status == 403
            assert "may not read figures" in text
            assert "shoal_controller" not in text


async def test_on_loopback_nothing_is_proved(tmp_path: Path) -> None:
    async with (
        running_controller(tmp_path / "state", insecure=False, metrics="127.0.0.1:0") as addresses,
        aiohttp.ClientSession() as session,
    ):
        status, text = await _status(session, f"http://{addresses.metrics}/metrics")
        assert status == 200
        assert "shoal_controller_leads 1.0" in text


async def test_who_is_revoked_reads_no_more_on_a_connection_that_stands(tmp_path: Path) -> None:
    own = ClusterIdentity(
        tmp_path, "c1", "main", lambda: dt.datetime.now(dt.UTC), hosts=("127.0.0.1",)
    )
    revoked: set[int] = set()
    readings = Readings()
    readings.tell(SECRET, 7)

    async def read() -> Readings:
        return readings

    proof = ReaderProof(lambda: own.credentials, revoked.__contains__)
    tls = client_context(own.bundle, web=False)
    tls.load_cert_chain(tmp_path / "identity.pem")
    async with (
        MetricsPage(read, clock=time.monotonic, host="127.0.0.1", port=0, proof=proof) as page,
        aiohttp.ClientSession() as session,
    ):
        url = f"https://127.0.0.1:{page.port}/metrics"
        status, text = await _status(session, url, tls)
        assert status == 200
        assert f"{SECRET.name} 7.0" in text
        revoked.add(serial_of(own.credentials.certificate))
        status, text = await _status(session, url, tls)
        assert status == 403
        assert "revoked" in text
