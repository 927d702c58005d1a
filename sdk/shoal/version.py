"""Which Shoal this is.

Both distributions read their version here while they are built. A build (`sdk/hatch_build.py`) also writes down
which commit it was made of; a checkout that is installed as it is says none, because it changes.
"""

from typing import Final

VERSION: Final = "0.2.0.dev0"
"""Of both distributions; `shoal-server` wants exactly this one of `shoal`."""

COMMIT: Final = ""
"""What the build was made of, with `+changes` where files were not committed; empty where that is not known."""


def described() -> str:
    """Return version and commit, as people tell them to one another."""
    return f"{VERSION}, commit {COMMIT}" if COMMIT else VERSION
