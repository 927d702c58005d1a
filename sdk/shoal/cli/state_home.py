"""Where commands keep what they know between two calls."""

import os
from pathlib import Path


def state_home() -> Path:
    """Folder that Shoal keeps its state in for this user; see the XDG Base Directory Specification."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "shoal"
