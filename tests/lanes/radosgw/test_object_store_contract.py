"""What every archive promises, at radosgw."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.archive.test_object_store_contract import *  # noqa: F403 - whatever is promised
from tests.integration.archive.test_object_store_contract import Archive, in_a_bucket
from tests.kit.archive import served_archive
from tests.kit.radosgw import Radosgw


@pytest.fixture
async def archive(radosgw: Radosgw, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Archive]:
    for name, value in radosgw.credentials.items():
        monkeypatch.setenv(name, value)
    async with served_archive(await in_a_bucket(radosgw.endpoint)) as opened:
        yield Archive(opened.store, "radosgw")
