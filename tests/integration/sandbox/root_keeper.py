"""A keeper of root's in a folder that every user reaches, and a plan that makes a program another user."""

import os
import resource
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge_agent.keeper import strays
from edge_agent.keeper.client import ensure_keeper
from edge_agent.sandbox.plan import SandboxPlan
from tests.integration.keeper.programs import keeper_of

USER = 211_001
PLAN = SandboxPlan(
    oom_score=500,
    limits=((int(resource.RLIMIT_NOFILE), 77), (int(resource.RLIMIT_NPROC), 200)),
    uid=USER,
    gid=USER,
    groups=(211_500,),
    no_new_privileges=True,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user reaches, with one of USER's in it."""
    made = Path(tempfile.mkdtemp(prefix="shoal-entry-", dir="/var/tmp"))
    made.chmod(0o755)
    (made / "work").mkdir(0o700)
    os.chown(made / "work", USER, USER)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def board(folder: Path) -> AsyncIterator[Path]:
    """Such a folder with a keeper of root's."""
    await ensure_keeper(folder / "keeper.sock", folder / "keeper.log")
    yield folder
    strays.end([keeper_of(folder)])
