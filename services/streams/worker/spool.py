"""The spool of one attempt: retained bodies on disk, in segments that are removed as a whole."""

from __future__ import annotations

import os
from pathlib import Path

from services.streams.retention import SpoolPlace


class Spool:
    """Files `{segment}.spool` in one folder, which is made when it is needed.

    It holds what can be made again by running the producer again, so nothing is flushed to disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, int] = {}

    def write(self, place: SpoolPlace, body: bytes) -> None:
        """Write a body to its place.

        Raises:
            OSError: The disk is full or broken.
        """
        descriptor = self._open(place.segment)
        done = 0
        while done < len(body):
            done += os.pwrite(descriptor, memoryview(body)[done:], place.offset + done)

    def read(self, place: SpoolPlace) -> bytes:
        """Return the body at its place.

        Raises:
            OSError: It cannot be read, or is cut short.
        """
        descriptor = self._open(place.segment)
        parts: list[bytes] = []
        have = 0
        while have < place.length:
            part = os.pread(descriptor, place.length - have, place.offset + have)
            if not part:
                raise OSError(f"segment {place.segment} ends before {place.offset + place.length}")
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def drop(self, segment: int) -> None:
        """Remove a segment."""
        descriptor = self._files.pop(segment, None)
        if descriptor is not None:
            os.close(descriptor)
            self._path(segment).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove every segment that is left."""
        for segment in list(self._files):
            self.drop(segment)

    def _open(self, segment: int) -> int:
        descriptor = self._files.get(segment)
        if descriptor is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = self._files[segment] = os.open(self._path(segment), flags, 0o600)
        return descriptor

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment}.spool"
