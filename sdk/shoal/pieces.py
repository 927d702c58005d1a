"""A bundle in pieces: how its archive travels, so that only what changed is sent.

A bundle stays one tar with one digest; its *pieces* are a partition of that tar, each known by its
SHA-256. An end that has some of them from an earlier bundle asks for the others alone.

Rule: a cut depends only on the entry before it, and never on how many entries came before.
Why: else a file that is added would move every cut behind it, and all of the rest would travel again.
So a large file is cut from its own beginning, and small entries stand together until one of them
says by its name that it is the last, or until they are a whole unit.
Example: 2,000 files of 1 KiB are some 100 pieces of 16 to 65 KiB. One file that changes is one piece.
Source: content-defined chunking as in LBFS (Muthitacharoen, Chen, Mazières, SOSP 2001), with the cuts at
borders of files, which a tar knows, in the place of a rolling hash.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

UNIT_BYTES: Final = 64 << 10
"""A file of a unit is cut out of its bundle; smaller ones stand together up to a unit."""

PIECE_BYTES_MAX: Final = 8 << 20
"""No piece is larger."""

PIECES_MAX: Final = 1 << 16
"""Most pieces of a bundle."""

_LARGE_BYTES: Final = 4 << 20
_UNITS_MAX: Final = 1 << 13
_DIGEST_BYTES: Final = 32
_SIZE_BYTES: Final = 4
_RECORD_BYTES: Final = _DIGEST_BYTES + _SIZE_BYTES

LIST_BYTES_MAX: Final = PIECES_MAX * _RECORD_BYTES
"""Size of the longest list of pieces, written."""


class PiecesError(ValueError):
    """Bytes that are no list of pieces; the message says why."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece by the SHA-256 of its bytes (hex), and how many they are."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PlacedPiece:
    """A piece and where in its bundle it begins, in bytes."""

    piece: Piece
    begin: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.begin + self.piece.size_bytes


@dataclass(slots=True)
class Cutter:
    """Says where the pieces of a tar end, while it is written.

    Args:
        expected_bytes: about how large the tar will be; of a large one the unit is larger.
    """

    expected_bytes: int
    ends: list[int] = field(default_factory=list[int])
    _unit: int = UNIT_BYTES
    _large: int = _LARGE_BYTES

    def __post_init__(self) -> None:
        while self.expected_bytes > _UNITS_MAX * self._unit and self._unit < _LARGE_BYTES // 2:
            self._unit *= 2
        while self.expected_bytes > _UNITS_MAX * self._large and self._large < PIECE_BYTES_MAX:
            self._large *= 2

    def entry(self, name: str, data: int, end: int) -> None:
        """Take note of an entry: where its content begins and where its last block ends, in bytes."""
        size = end - data
        if size >= self._unit:
            self._cut(data)
            for at in range(data + self._large, end, self._large):
                self._cut(at)
            self._cut(end)
            return
        run = end - self._last
        if run >= self._unit or (run >= self._unit // 4 and self._is_last(name, size)):
            self._cut(end)

    def finish(self, size_bytes: int) -> tuple[int, ...]:
        """Return where each piece of a tar of so many bytes ends."""
        self._cut(size_bytes)
        return tuple(self.ends)

    @property
    def _last(self) -> int:
        return self.ends[-1] if self.ends else 0

    def _cut(self, at: int) -> None:
        # What is in no file, such as the end of the tar, can be large only if the tar was made by others.
        while at - self._last > PIECE_BYTES_MAX:
            self.ends.append(self._last + PIECE_BYTES_MAX)
        if at > self._last:
            self.ends.append(at)

    def _is_last(self, name: str, size_bytes: int) -> bool:
        """Draw by the name: twice in a unit of bytes, about."""
        drawn = int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big")
        return drawn < ((size_bytes + 512) << 33) // self._unit


def measure(path: Path, ends: Sequence[int]) -> tuple[Piece, ...]:
    """Read a tar and return its pieces, which end at `ends`.

    Raises:
        OSError: it cannot be read.
    """
    found: list[Piece] = []
    with path.open("rb") as file:
        for end in ends:
            data = file.read(end - (file.tell()))
            found.append(Piece(hashlib.sha256(data).hexdigest(), len(data)))
    return tuple(found)


def placed(pieces: Sequence[Piece]) -> Iterator[PlacedPiece]:
    """Return where each piece begins."""
    begin = 0
    for piece in pieces:
        yield PlacedPiece(piece, begin)
        begin += piece.size_bytes


def write_pieces(pieces: Sequence[Piece]) -> bytes:
    """Write a list: of each piece its SHA-256 (32 bytes) and its size (4 bytes, big-endian)."""
    return b"".join(
        bytes.fromhex(piece.sha256) + piece.size_bytes.to_bytes(_SIZE_BYTES, "big")
        for piece in pieces
    )


def read_pieces(data: bytes) -> tuple[Piece, ...]:
    """Read a list.

    Raises:
        PiecesError: it is none, is too long, or has a piece of a size that no piece has.
    """
    if not data or len(data) % _RECORD_BYTES:
        raise PiecesError(
            f"{len(data)} bytes are no list of pieces: each has {_RECORD_BYTES}, and there is one at least"
        )
    if len(data) > LIST_BYTES_MAX:
        raise PiecesError(
            f"{len(data) // _RECORD_BYTES} pieces are too many: a bundle has at most {PIECES_MAX}"
        )
    found: list[Piece] = []
    for at in range(0, len(data), _RECORD_BYTES):
        size_bytes = int.from_bytes(data[at + _DIGEST_BYTES : at + _RECORD_BYTES], "big")
        if not 0 < size_bytes <= PIECE_BYTES_MAX:
            raise PiecesError(
                f"piece {len(found)} has {size_bytes} bytes; a piece has 1 to {PIECE_BYTES_MAX}"
            )
        found.append(Piece(data[at : at + _DIGEST_BYTES].hex(), size_bytes))
    return tuple(found)
