"""What every archive promises, at radosgw."""

import pytest

from tests.integration.archive.test_object_store_contract import *  # noqa: F403 - whatever is promised

pytestmark = pytest.mark.parametrize("archive", ["radosgw"], indirect=True)
