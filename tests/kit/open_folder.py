"""A folder that every user can pass, as jobs with users of their own need it: pytest's own is closed to others."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder below /var/tmp with mode 0755; its path is short enough for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
