"""A release of the last commit, made once for all tests of the lane."""

import logging
import time
from pathlib import Path

import pytest

from tests.kit.release import make_release

LOG = logging.getLogger("packages")
"""Tells what each step took; `make lane-packages` shows it."""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release, to be read alone."""
    folder = tmp_path_factory.mktemp("release")
    begin = time.monotonic()
    said = make_release(folder)
    LOG.info("%s\na release was made within %.1f s", said, time.monotonic() - begin)
    return folder
