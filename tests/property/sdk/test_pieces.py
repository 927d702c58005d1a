"""Pieces are a partition of the tar, never too many or too large, and a change stays where it is."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.bundle import BundleFolder, pack
from shoal.pieces import (
    LIST_BYTES_MAX,
    PIECE_BYTES_MAX,
    PIECES_MAX,
    Cutter,
    Piece,
    PiecesError,
    measure,
    placed,
    read_pieces,
    write_pieces,
)

BLOCK = 512
SIZES = st.lists(
    st.integers(0, 5000) | st.integers(0, 300_000) | st.integers(0, 40_000_000), max_size=200
)


def cut(sizes: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Cut a tar of files of such sizes, without writing it."""
    blocks = [-(-size // BLOCK) * BLOCK for size in sizes]
    cutter = Cutter(sum(blocks) + BLOCK * len(sizes))
    at = 0
    for index, size in enumerate(blocks):
        at += BLOCK + size
        cutter.entry(f"f{index}", at - size, at)
    return cutter.finish(at + 1024), at + 1024


@settings(max_examples=100, deadline=None)
@given(SIZES)
def test_pieces_are_a_partition_of_bounded_parts(sizes: list[int]) -> None:
    ends, size_bytes = cut(sizes)
    assert ends[-1] == size_bytes
    found = [end - begin for begin, end in zip((0, *ends), ends, strict=False)]
    assert all(0 < one <= PIECE_BYTES_MAX for one in found)


@pytest.mark.parametrize(
    ("count", "size_bytes"),
    [
        (1_000_000, 0),
        (1_000_000, 1024),
        (262_144, 64 << 10),
        (4_096, 4 << 20),
        (200, 80 << 20),
        (1, 15 << 30),
        (500_000, 20_000),
    ],
)
def test_the_largest_bundles_have_not_too_many_pieces(count: int, size_bytes: int) -> None:
    ends, _ = cut([size_bytes] * count)
    assert len(ends) <= PIECES_MAX


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
@pytest.mark.parametrize("seed", range(5))
def test_a_change_of_one_small_file_is_a_few_pieces(change: str, seed: int, tmp_path: Path) -> None:
    rng = Random(seed)
    for index in range(500):
        (tmp_path / f"{index:03}-{rng.randrange(1 << 30)}").write_bytes(rng.randbytes(2000))
    before = pieces_of(tmp_path)
    one = rng.choice(sorted(tmp_path.iterdir()))
    match change:
        case "edit":
            one.write_bytes(rng.randbytes(2000))
        case "add":
            (tmp_path / f"{one.name}-more").write_bytes(rng.randbytes(2000))
        case "remove":
            one.unlink()
        case _:
            one.rename(tmp_path / f"{rng.randrange(500):03}-new")
    new = set(pieces_of(tmp_path)) - set(before)
    # Two places at most: of each the run with it, and the one behind if that was joined to it.
    assert sum(piece.size_bytes for piece in new) < 300_000


def pieces_of(folder: Path) -> tuple[Piece, ...]:
    with pack(BundleFolder(folder)) as packed:
        found = measure(packed.path, packed.ends)
        assert sum(piece.size_bytes for piece in found) == packed.size_bytes
        assert [one.end for one in placed(found)] == list(packed.ends)
        return found


PIECES = st.lists(
    st.builds(Piece, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(1, 8 << 20)),
    min_size=1,
)


@given(PIECES)
def test_a_list_of_pieces_is_read_as_it_was_written(pieces: list[Piece]) -> None:
    assert list(read_pieces(write_pieces(pieces))) == pieces


@given(st.binary(max_size=200))
def test_whatever_comes_for_a_list_is_one_or_is_refused(data: bytes) -> None:
    try:
        found = read_pieces(data)
    except PiecesError:
        return
    assert write_pieces(found) == data


def test_a_list_that_is_too_long_is_refused() -> None:
    one = write_pieces([Piece("0" * 64, 1)])
    assert len(read_pieces(one * PIECES_MAX)) == PIECES_MAX
    assert len(one) * PIECES_MAX == LIST_BYTES_MAX
    with pytest.raises(PiecesError, match="65536"):
        read_pieces(one * (PIECES_MAX + 1))


def test_an_empty_folder_has_a_piece() -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert len(pieces_of(Path(folder))) == 1
