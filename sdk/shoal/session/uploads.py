"""Uploads: agents hold no keys, so they ask where each artifact may be stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.model import Artifact, no_strings
from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class ArtifactParts:
    """How one large artifact travels: the size of its parts in bytes, and the SHA-256 of each in hex.

    `upload_id` names what the archive has of it, once it was told; it is for these very parts.
    """

    path: str
    part_bytes: int
    part_sha256: tuple[str, ...]
    upload_id: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactContent:
    """All of a small artifact."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class UploadsWanted:
    """A request for addresses to store artifacts under; `parts` are of those that travel in parts.

    `contents` are some of those that are small: a controller that takes them stores them itself, and grants
    an address for what it could not store.
    """

    ref: AttemptRef
    artifacts: tuple[Artifact, ...]
    parts: tuple[ArtifactParts, ...] = ()
    contents: tuple[ArtifactContent, ...] = ()


@dataclass(frozen=True, slots=True)
class PartGrant:
    """Where to store one part, by its number from 1."""

    number: int
    url: str
    headers: Mapping[str, str] = field(default_factory=no_strings)


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """Where to store one artifact: an address for a PUT and the headers that it must carry.

    `problem` says why it cannot be stored; it has no address then. Nor has what travels in parts: it
    has `upload_id` and `parts`, some of those that are missing, and is asked about again once they are
    there, or it is `stored`. `later` says why there is nothing yet, and it is to be asked about again.
    """

    path: str
    key: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=no_strings)
    problem: str = ""
    upload_id: str = ""
    parts: tuple[PartGrant, ...] = ()
    stored: bool = False
    later: str = ""


@dataclass(frozen=True, slots=True)
class UploadsGranted:
    """The answer to `UploadsWanted`."""

    ref: AttemptRef
    grants: tuple[UploadGrant, ...]
