"""The pieces of a bundle that other bundles on this node have, so that only the rest is fetched.

Rule: whatever is read here is checked by its hash first, and what does not fit is as if it were not here.
Why: a disk may have damaged it, and the archive has it anyway.
Example: of 2,000 files one has changed. The list says 64 pieces, 63 lie here, and one range is fetched.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.download import Downloader, FetchError
from services.runtime.log import fields
from shoal.pieces import LIST_BYTES_MAX, PiecesError, PlacedPiece, placed, read_pieces

LOG = logging.getLogger(__name__)

LIST_SUFFIX: Final = ".pieces"

_LISTS_MAX: Final = 64
"""So many other bundles are looked at, those that were used last."""

_WORTH_BYTES: Final = 256 << 10
"""A gap between two fetched ranges is fetched, too, where less than this lies here: a request costs as much."""

_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Source:
    """A file, and where in it a piece begins."""

    path: Path
    begin: int


@dataclass(slots=True)
class LocalPieces:
    """One bundle: which of its pieces lie here, in order.

    Args:
        pieces: all of its pieces.
        sources: where pieces lie, by SHA-256.
    """

    pieces: tuple[PlacedPiece, ...]
    sources: dict[str, _Source]
    copied: int = 0
    """Bytes that were read here."""
    _at: int = 0
    _damaged: set[str] = field(default_factory=set[str])

    @property
    def size_bytes(self) -> int:
        """Size of the whole."""
        return self.pieces[-1].end

    def read(self, begin: int) -> bytes:
        """Return what lies here from byte `begin` on, to the end of its piece; nothing if that is not here."""
        self._go_to(begin)
        if begin >= self.size_bytes:
            return b""
        one = self.pieces[self._at]
        source = self.sources.get(one.piece.sha256)
        if source is None or one.piece.sha256 in self._damaged:
            return b""
        data = b""
        with contextlib.suppress(OSError), source.path.open("rb") as file:
            file.seek(source.begin)
            data = file.read(one.piece.size_bytes)
        if hashlib.sha256(data).hexdigest() != one.piece.sha256:
            self._damaged.add(one.piece.sha256)
            return b""
        self.copied += len(data) - (begin - one.begin)
        return data[begin - one.begin :]

    def missing_until(self, begin: int) -> int:
        """Return where what has to be fetched from byte `begin` on ends."""
        self._go_to(begin)
        here = 0
        for index in range(self._at, len(self.pieces)):
            one = self.pieces[index]
            lies_here = (
                one.piece.sha256 in self.sources and one.piece.sha256 not in self._damaged
            ) and one.begin >= begin
            here = here + one.piece.size_bytes if lies_here else 0
            if here >= _WORTH_BYTES or (lies_here and one.end == self.size_bytes):
                return one.end - here
        return self.size_bytes

    def _go_to(self, begin: int) -> None:
        if self._at and begin < self.pieces[self._at].begin:
            self._at = 0
        while self._at < len(self.pieces) - 1 and self.pieces[self._at].end <= begin:
            self._at += 1


@dataclass(frozen=True, slots=True)
class PieceLists:
    """The lists of pieces of the bundles in a folder, each beside its bundle.

    Args:
        folder: where bundles lie by their digest.
        downloader: fetches lists.
    """

    folder: Path
    downloader: Downloader

    async def find(
        self, digest: str, url: str, waiting: Callable[[str], None]
    ) -> LocalPieces | None:
        """Fetch the list of a bundle, and look which of its pieces are here; None if there is no list."""
        path = self.folder / f"{digest}{LIST_SUFFIX}"
        if not path.exists():
            try:
                await self.downloader.fetch(
                    url,
                    path,
                    what=f"the list of pieces of bundle {digest[:12]}",
                    waiting=waiting,
                    patience_seconds=_PATIENCE_SECONDS,
                )
            except FetchError as error:
                # A bundle that was uploaded whole has none.
                LOG.info("a bundle is fetched whole", extra=fields(digest=digest, why=error))
                return None
        return await asyncio.to_thread(self._look, path)

    def forget(self, present: Collection[str]) -> None:
        """Remove the lists of bundles that are not here any more."""
        for path in self.folder.glob(f"*{LIST_SUFFIX}"):
            if path.stem not in present:
                path.unlink(missing_ok=True)

    def _look(self, path: Path) -> LocalPieces | None:
        wanted = _read(path)
        if not wanted:
            path.unlink(missing_ok=True)
            return None
        names = {one.piece.sha256 for one in wanted}
        sources: dict[str, _Source] = {}
        for other in self._others(path):
            for one in _read(other.with_name(other.name + LIST_SUFFIX)):
                if one.piece.sha256 in names:
                    sources.setdefault(one.piece.sha256, _Source(other, one.begin))
        return LocalPieces(wanted, sources)

    def _others(self, path: Path) -> list[Path]:
        """Bundles whose lists are here, those that were used last first."""
        found: list[tuple[float, Path]] = []
        for one in self.folder.glob(f"*{LIST_SUFFIX}"):
            bundle = one.with_suffix("")
            with contextlib.suppress(FileNotFoundError):
                if one != path:
                    found.append((bundle.stat().st_mtime, bundle))
        return [bundle for _, bundle in sorted(found, reverse=True)[:_LISTS_MAX]]


def _read(path: Path) -> tuple[PlacedPiece, ...]:
    """Read a list; empty if it is none."""
    try:
        with path.open("rb") as file:
            return tuple(placed(read_pieces(file.read(LIST_BYTES_MAX + 1))))
    except (OSError, PiecesError):
        return ()
