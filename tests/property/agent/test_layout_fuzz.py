"""Whatever a tar holds, nothing appears outside the folder, and nothing but a refusal comes out."""

import io
import os
import tarfile
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.bundles.layout import BundleRefusedError, LayoutLimits, lay_out
from edge_agent.long_work import done_at_once
from tests.kit.bundle_archive import tar_of
from tests.property.agent.mutated_archives import Played, archive, play

LIMITS = LayoutLimits(bytes_max=1 << 20, entries_max=100)
PARTS = st.sampled_from(["a", "b", "..", ".", "", "/", "link", "d", "é", "x" * 120])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from(
    [
        tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
        tarfile.CHRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE,
    ]
)  # fmt: skip
MEMBERS = st.lists(
    st.tuples(NAMES, KINDS, NAMES, st.integers(0, 0o7777), st.binary(max_size=64)), max_size=12
)


def outside(root: Path) -> set[str]:
    """Everything beneath `root` that is not in its folder `work`."""
    return {
        os.path.join(parent, name)  # noqa: PTH118
        for parent, folders, names in os.walk(root)
        for name in [*folders, *names]
        if not os.path.join(parent, name).startswith(str(root / "in" / "work"))  # noqa: PTH118
    }


def try_out(data: bytes, *, flat: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        archive = root / "bundle.tar"
        archive.write_bytes(data)
        place = root / "in" / "work"
        before = outside(root)
        try:
            done_at_once(lay_out(archive, place, flat=flat, limits=LIMITS))
        except BundleRefusedError:
            pass  # it was refused for a link, perhaps; nothing of it is used
        else:
            real = os.path.realpath(place)
            for parent, folders, names in os.walk(place):
                for name in [*folders, *names]:
                    path = os.path.realpath(os.path.join(parent, name))  # noqa: PTH118
                    assert path == real or path.startswith(real + os.sep)
        assert outside(root) == before


@settings(max_examples=400, deadline=None)
@given(MEMBERS, st.booleans())
def test_made_up_archives_stay_inside(
    members: list[tuple[str, bytes, str, int, bytes]],
    flat: bool,  # noqa: FBT001
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, mode, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, mode
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    try_out(out.getvalue(), flat=flat)


WHOLE = tar_of({"a/": "", "a/b": b"x" * 700, "c": "", "d/e/f": "hello"}, {"c": 0o755})


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(WHOLE)),
    st.booleans(),
)
def test_damaged_archives_stay_inside(
    changes: list[tuple[int, int]],
    length: int,
    fix: bool,  # noqa: FBT001
) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    if fix:
        # Damage that the checksum of a header would find is made to get past it.
        for block in range(0, len(data), 512):
            header = data[block : block + 512]
            if bytes(header[257:262]) == b"ustar":
                header[148:156] = b" " * 8
                data[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    try_out(bytes(data[:length]) if length else bytes(data), flat=False)


@pytest.mark.parametrize("first", [0, 1_000_000])
def test_mutated_archives_stay_inside_and_end_as_they_may(first: int, tmp_path: Path) -> None:
    # `make fuzz-bundles` plays a hundred thousand.
    played = Played()
    for seed in range(first, first + 600):
        play(seed, tmp_path, played)
    assert played.ends["laid out"] > 50
    assert played.ends["refused"] > 50


def test_one_seed_is_one_archive() -> None:
    assert archive(Random(5)) == archive(Random(5))
    assert len({archive(Random(seed)) for seed in range(100)}) > 80
