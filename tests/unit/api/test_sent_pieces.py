"""What clients have sent of bundles that are not whole: room, age, and what a disk may do to it."""

import itertools
from pathlib import Path

import pytest

from control.front.bundles.known_pieces import KnownPieces, Whereabouts
from control.front.bundles.sent_pieces import BundleUpload, NoRoomError, SentPieces
from shoal.pieces import Piece

A = Piece("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", 1)
"""The piece `a`."""
FIRST, SECOND = BundleUpload("lab", "1" * 64), BundleUpload("yard", "2" * 64)


class Wall:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sent_in(folder: Path, wall: Wall | None = None, bytes_max: int = 3) -> SentPieces:
    numbers = itertools.count()
    return SentPieces(folder / "sent", wall or Wall(), lambda: str(next(numbers)), bytes_max)


def test_a_piece_is_read_as_it_was_sent_or_not_at_all(tmp_path: Path) -> None:
    sent = sent_in(tmp_path)
    assert sent.of(FIRST) == frozenset()
    assert sent.read(FIRST, A) is None
    sent.write(FIRST, A, b"a")
    assert sent.of(FIRST) == {A.sha256}
    assert sent.of(SECOND) == frozenset()
    assert sent.read(FIRST, A) == b"a"
    (tmp_path / "sent" / "lab" / FIRST.digest / A.sha256).write_bytes(b"?")
    assert sent.read(FIRST, A) is None
    assert sent.of(FIRST) == frozenset()


def test_what_does_not_go_on_makes_room_for_what_does(tmp_path: Path) -> None:
    sent = sent_in(tmp_path)
    sent.write(FIRST, A, b"a")
    sent.make_room(2)
    assert sent.of(FIRST)
    sent.make_room(3)
    assert not sent.of(FIRST)
    sent.write(FIRST, A, b"a")
    with sent.held(FIRST), pytest.raises(NoRoomError, match="at most 3 bytes"):
        sent.make_room(3)
    assert sent.of(FIRST)


def test_what_does_not_go_on_is_dropped_after_a_day(tmp_path: Path) -> None:
    wall = Wall()
    sent = sent_in(tmp_path, wall)
    sent.write(FIRST, A, b"a")
    wall.now = (tmp_path / "sent" / "lab" / FIRST.digest).stat().st_mtime + 86_399
    assert sent.clean() == 0
    wall.now += 2
    with sent.held(FIRST):
        assert sent.clean() == 0
    assert sent.clean() == 1
    assert not sent.of(FIRST)


def test_a_bundle_is_known_until_it_is_forgotten(tmp_path: Path) -> None:
    known = KnownPieces(tmp_path / "pieces.db")
    b = Piece("3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", 1)
    known.add("lab", "1" * 64, [A, b])
    known.add("lab", "2" * 64, [b])
    every = (A.sha256, b.sha256)
    found = {A.sha256: Whereabouts("1" * 64, 0), b.sha256: Whereabouts("2" * 64, 0)}
    assert known.find("lab", every) == found
    assert known.find("yard", every) == {}
    known.close()
    assert known.find("lab", every) == found
    known.forget("2" * 64)
    assert known.find("lab", every) == {A.sha256: Whereabouts("1" * 64, 0)}


def test_the_oldest_bundles_are_forgotten_first(tmp_path: Path) -> None:
    known = KnownPieces(tmp_path / "pieces.db", pieces_max=10)
    for bundle in range(5):
        known.add(
            "lab", str(bundle) * 64, [Piece(f"{bundle}{index}" * 32, 1) for index in range(4)]
        )
    there = [bool(known.find("lab", [f"{bundle}0" * 32])) for bundle in range(5)]
    assert there == [False, False, False, True, True]


def test_a_file_that_is_no_database_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "pieces.db").write_bytes(b"no database " * 1000)
    known = KnownPieces(tmp_path / "pieces.db")
    known.add("lab", "1" * 64, [A])
    assert known.find("lab", [A.sha256]) == {}
    known.add("lab", "1" * 64, [A])
    assert known.find("lab", [A.sha256]) == {A.sha256: Whereabouts("1" * 64, 0)}
    known.close()
