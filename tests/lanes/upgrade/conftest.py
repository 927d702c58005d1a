"""The builds of the lane, each installed once, and a cluster whose processes may be of any of them."""

import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kit.builds import Build, build_of, this_build
from tests.kit.releases import check_commit, newest_release
from tests.lanes.upgrade.mixed_cluster import MixedCluster

LOG = logging.getLogger("upgrade")
"""Tells what each step took; `make lane-upgrade` shows it."""

BEFORE_0_1_0 = "59d5a6a5edcaa7f705178a0d1ac6e5366f67d60b"
"""A build that says no protocol."""


def _built(commit: str, folder: Path, name: str) -> Build:
    begin = time.monotonic()
    build = build_of(commit, folder, name)
    LOG.info("%s was built and installed within %.1f s", name, time.monotonic() - begin)
    return build


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The newest release."""
    newest = newest_release()
    return _built(newest.commit, tmp_path_factory.mktemp("release") / "venv", newest.version)


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build before 0.1.0."""
    check_commit(BEFORE_0_1_0, "the last build before 0.1.0")
    return _built(BEFORE_0_1_0, tmp_path_factory.mktemp("before") / "venv", "before 0.1.0")


@pytest.fixture(scope="session")
def ours() -> Build:
    """The checkout as it is."""
    return this_build()


@pytest.fixture(autouse=True)
def _told(request: pytest.FixtureRequest) -> Iterator[None]:
    begin = time.monotonic()
    yield
    LOG.info("%s: %.1f s", request.node.name, time.monotonic() - begin)


@pytest.fixture
async def cluster() -> AsyncIterator[MixedCluster]:
    """A cluster of which nothing runs yet."""
    async with MixedCluster() as cluster:
        yield cluster
