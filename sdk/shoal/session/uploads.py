"""Uploads: agents hold no keys, so they ask where each artifact may be stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.model import Artifact, no_strings
from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class UploadsWanted:
    """A request for addresses to store artifacts under."""

    ref: AttemptRef
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """Where to store one artifact: an address for a PUT and the headers that it must carry.

    `problem` says why it cannot be stored; it has no address then.
    """

    path: str
    key: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=no_strings)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class UploadsGranted:
    """The answer to `UploadsWanted`."""

    ref: AttemptRef
    grants: tuple[UploadGrant, ...]
