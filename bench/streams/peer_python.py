"""The peers that are no dependency of ours, in an environment of their own."""

from __future__ import annotations

import subprocess
import venv
from functools import lru_cache
from pathlib import Path

FOLDER = Path("build") / "bench-peers"
PACKAGES = ("dora-rs==1.1.*", "dora-rs-cli==1.1.*", "pyzmq")
_SECONDS = 600


class PeerMissingError(Exception):
    """A peer is not to be had here; the message says what was tried."""


@lru_cache
def peer_folder() -> Path:
    """Make the environment, once for all runs, and return its `bin`.

    Raises:
        PeerMissingError: It cannot be made; holds the end of what the installer said.
    """
    bin_folder = (FOLDER / "bin").absolute()
    if not (FOLDER / "done").exists():
        venv.create(FOLDER, with_pip=True, clear=True)
        words = [str(bin_folder / "python"), "-m", "pip", "install", "--quiet", *PACKAGES]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            raise PeerMissingError(f"pip install {' '.join(PACKAGES)}: {done.stderr[-400:]}")
        (FOLDER / "done").touch()
    return bin_folder
