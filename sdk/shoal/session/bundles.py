"""Bundles that are on a node before they are needed: which it shall have, and which it has."""

from dataclasses import dataclass
from typing import Final

BUNDLES_WANTED_MAX: Final = 256
"""Most bundles that are wanted of a node before they are needed."""


@dataclass(frozen=True, slots=True)
class WantedBundle:
    """A bundle by its SHA-256 (hex), and addresses of it and of the list of its pieces, good for a while."""

    digest: str
    url: str = ""
    pieces_url: str = ""


@dataclass(frozen=True, slots=True)
class BundlesWanted:
    """The bundles that a node shall have and keep; each such message is the whole of it."""

    bundles: tuple[WantedBundle, ...] = ()


@dataclass(frozen=True, slots=True)
class BundlesHeld:
    """The bundles that are on a node, by their SHA-256 (hex); each such message is the whole of it."""

    digests: frozenset[str] = frozenset()
