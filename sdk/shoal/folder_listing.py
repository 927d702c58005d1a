"""What a folder input is made of: found at the submission, the same for every attempt.

A listing is kept under the SHA-256 of its encoding, which names it in the store of the controller and
in what an agent is told. So what was found cannot change without being noticed.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

_FORMAT = 1


class ListingError(ValueError):
    """Bytes that are no listing of a version that this build knows."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file: `key` is its path below the root of the listing.

    `etag` is what its store calls this content, as HTTP quotes it; `sha256` is in hex. Either may be
    empty, where it is not known.
    """

    key: str
    size_bytes: int
    etag: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The files of one input; `root` is `s3://bucket/prefix/`, or the key of a folder of the archive."""

    root: str
    files: tuple[ListedFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)

    def encode(self) -> bytes:
        """Write it; equal listings are equal bytes."""
        files = [[one.key, one.size_bytes, one.etag, one.sha256] for one in self.files]
        document = {"format": _FORMAT, "root": self.root, "files": files}
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "FolderListing":
        """Read what `encode` wrote.

        Raises:
            ListingError: it did not write this.
        """
        try:
            document = cast("dict[str, Any]", json.loads(data))
            if document["format"] != _FORMAT:
                raise ListingError(
                    f"a listing of format {document['format']} is of a newer version"
                )
            files = tuple(
                ListedFile(str(key), int(size), str(etag), str(sha256))
                for key, size, etag, sha256 in document["files"]
            )
            return cls(str(document["root"]), files)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, ListingError):
                raise
            raise ListingError(f"the listing of a folder input cannot be read: {error}") from error


def listing_digest(data: bytes) -> str:
    """Return what an encoded listing is known by: its SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
