"""The server of the lane, which stands where the other lanes have ministack."""

import logging
import time
from collections.abc import Iterator

import pytest

from tests.integration.edge.conftest import edge_broker
from tests.kit.radosgw import Radosgw

__all__ = ["edge_broker"]

LOG = logging.getLogger("radosgw")
"""Tells what each step took; `make lane-radosgw` shows it."""

logging.getLogger("aiobotocore").setLevel(
    logging.WARNING
)  # or each client says where it found keys


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radosgw]:
    """One server for the whole run, each test takes a bucket of its own."""
    begin = time.monotonic()
    with Radosgw(tmp_path_factory.mktemp("radosgw")) as server:
        LOG.info("radosgw was there within %.1f s", time.monotonic() - begin)
        yield server


@pytest.fixture
def radosgw_endpoint(radosgw: Radosgw, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its address, for a test that from then on has its keys."""
    for name, value in radosgw.credentials.items():
        monkeypatch.setenv(name, value)
    return radosgw.endpoint


@pytest.fixture(scope="session")
def ministack(radosgw: Radosgw) -> Radosgw:
    """What the tests of cases ask for by that name; whoever stops it starts it again."""
    return radosgw


@pytest.fixture(autouse=True)
def _told(request: pytest.FixtureRequest) -> Iterator[None]:
    begin = time.monotonic()
    yield
    LOG.info("%s: %.1f s", request.node.name, time.monotonic() - begin)
