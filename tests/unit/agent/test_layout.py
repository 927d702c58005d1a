"""A bundle is laid out exactly, or refused with the name of what is wrong."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.bundles.layout import BundleRefusedError, LayoutLimits, lay_out
from edge_agent.long_work import done_at_once
from edge_agent.removal import remove_tree
from tests.kit.bundle_archive import tar_of


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.mode = mode
    return info


def archive(folder: Path, *members: tarfile.TarInfo, data: bytes = b"") -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in members:
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    path = folder / "bundle.tar"
    path.write_bytes(out.getvalue())
    return path


def test_modes_links_and_empty_folders_are_kept(tmp_path: Path) -> None:
    path = archive(
        tmp_path,
        member("d", tarfile.DIRTYPE, mode=0o750),
        member("d/run", mode=0o755),
        member("empty", tarfile.DIRTYPE, mode=0o500),
        member("link", tarfile.SYMTYPE, "d/run"),
        member("folder", tarfile.SYMTYPE, "d"),
        member("same", tarfile.LNKTYPE, "d/run"),
        data=b"hello",
    )
    place = tmp_path / "work"
    done_at_once(lay_out(path, place))
    assert (place / "d/run").read_bytes() == b"hello"
    assert oct((place / "d/run").stat().st_mode & 0o777) == "0o755"
    assert oct((place / "d").stat().st_mode & 0o777) == "0o750"
    assert oct((place / "empty").stat().st_mode & 0o777) == "0o500"
    assert (place / "link").readlink() == Path("d/run")
    assert (place / "folder/run").read_bytes() == b"hello"
    assert (place / "same").read_bytes() == b"hello"
    assert done_at_once(remove_tree(place)).count == 0
    assert not place.exists()


def test_nobody_gets_somebody_elses_rights(tmp_path: Path) -> None:
    done_at_once(lay_out(archive(tmp_path, member("suid", mode=0o6755)), tmp_path / "work"))
    assert oct((tmp_path / "work/suid").stat().st_mode & 0o7777) == "0o755"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (member("/etc/passwd"), "absolute"),
        (member("../out"), "leads out"),
        (member("a/../../out"), "leads out"),
        (member("link", tarfile.SYMTYPE, "/etc"), "leads out"),
        (member("link", tarfile.SYMTYPE, "../.."), "leads out"),
        (member("a/link", tarfile.SYMTYPE, "../../out"), "leads out"),
        (member("hard", tarfile.LNKTYPE, "/etc/passwd"), "no earlier file"),
        (member("hard", tarfile.LNKTYPE, "../x"), "no earlier file"),
        (member("null", tarfile.CHRTYPE), "neither file"),
        (member("disk", tarfile.BLKTYPE), "neither file"),
        (member("pipe", tarfile.FIFOTYPE), "neither file"),
    ],
)
def test_what_leads_out_or_is_no_file_is_refused(
    tmp_path: Path, bad: tarfile.TarInfo, said: str
) -> None:
    path = archive(tmp_path, member("good"), bad)
    with pytest.raises(BundleRefusedError, match=said) as refused:
        done_at_once(lay_out(path, tmp_path / "work"))
    assert repr(bad.name) in str(refused.value)


@pytest.mark.parametrize(
    "members",
    [
        (member("way", tarfile.SYMTYPE, "."), member("way/file")),
        (member("file"), member("file/below")),
        (member("twice"), member("twice")),
        (member("a"), member("a", tarfile.DIRTYPE)),
        (member("a/b"), member("a", tarfile.SYMTYPE, ".")),
        (member("one", tarfile.SYMTYPE, "two"), member("two", tarfile.SYMTYPE, "../../etc")),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, members: tuple[tarfile.TarInfo, ...]
) -> None:
    with pytest.raises(BundleRefusedError):
        done_at_once(lay_out(archive(tmp_path, *members), tmp_path / "work"))


def test_a_folder_named_twice_is_one_folder(tmp_path: Path) -> None:
    path = archive(
        tmp_path, member("d/f"), member("d", tarfile.DIRTYPE), member("d", tarfile.DIRTYPE)
    )
    done_at_once(lay_out(path, tmp_path / "work"))
    assert (tmp_path / "work/d/f").is_file()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (LayoutLimits(bytes_max=9), "more than 9 bytes"),
        (LayoutLimits(entries_max=1), "more than 1 entries"),
        (LayoutLimits(name_bytes_max=3), "not a name"),
    ],
)
def test_too_much_is_refused(tmp_path: Path, limits: LayoutLimits, said: str) -> None:
    path = archive(tmp_path, member("a"), member("long"), data=b"01234567")
    with pytest.raises(BundleRefusedError, match=said):
        done_at_once(lay_out(path, tmp_path / "work", limits=limits))


def cut(data: bytes) -> bytes:
    return data[: len(data) - 11 * 1024]


def garble(_: bytes) -> bytes:
    return b"not a tar at all" * 99


def empty(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [garble, cut, empty])
def test_what_is_no_tar_or_was_cut_off_is_refused(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(spoil(tar_of({"big": b"x" * 20_000})))
    with pytest.raises(BundleRefusedError):
        done_at_once(lay_out(path, tmp_path / "work"))


def test_a_flat_layout_keeps_files_and_their_links(tmp_path: Path) -> None:
    """E4."""
    path = archive(
        tmp_path,
        member("Code", tarfile.DIRTYPE),
        member("Code/run.py"),
        member("Data/iris.csv"),
        member("Model/latest.csv", tarfile.SYMTYPE, "../Data/iris.csv"),
        data=b"5",
    )
    done_at_once(lay_out(path, tmp_path / "work", flat=True))
    assert sorted(os.listdir(tmp_path / "work")) == ["iris.csv", "latest.csv", "run.py"]
    assert (tmp_path / "work/latest.csv").read_bytes() == b"5"


def test_a_flat_layout_refuses_a_clash_and_names_both_files(tmp_path: Path) -> None:
    """E4."""
    path = archive(tmp_path, member("Code/a.txt"), member("Data/a.txt"))
    with pytest.raises(BundleRefusedError, match=r"'Code/a\.txt' and 'Data/a\.txt'"):
        done_at_once(lay_out(path, tmp_path / "work", flat=True))
