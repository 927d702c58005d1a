"""The wheels of both distributions as they were at a commit, built from git."""

import os
import subprocess
import sys
from pathlib import Path

from tests.kit.tree import ROOT

BUILD = ROOT / ".ci" / "wheels"


def build_wheels(commit: str, folder: Path) -> tuple[Path, Path]:
    """Build the wheels of `shoal` and of `shoal-server` of a commit into a folder of their own.

    Nothing is downloaded; it takes about a second.

    Args:
        commit: of this clone, by any name that git knows.
        folder: where the wheels go; it is made if it is not there.

    Returns:
        The wheel of `shoal`, and that of `shoal-server`.

    Raises:
        AssertionError: the commit is not in this clone, or does not build.
    """
    built = subprocess.run(
        [BUILD, commit, folder],
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stdout
    (sdk,) = folder.glob("shoal-*.whl")
    (server,) = folder.glob("shoal_server-*.whl")
    return sdk, server
