"""Programs from the operating system that a test lane needs."""

import os
import shutil
from typing import NoReturn

import pytest

# Debian keeps servers in sbin, which is not on everybody's PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program(name: str) -> str:
    """Return the path of a program, or end the test that needs it.

    Under CI (`CI=true`) a missing program fails the test, because a lane that quietly does not run
    is a lane that does not exist; on somebody's own machine the test is skipped and says why.
    """
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        unavailable(f"{name} is not installed; `make system` installs it or says how")
    return path


def unavailable(reason: str) -> NoReturn:
    """End the test that needs what is not there: it fails under CI, and is skipped elsewhere."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(reason)
    pytest.skip(reason)
