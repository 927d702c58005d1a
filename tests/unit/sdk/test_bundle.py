"""A folder becomes the same bytes wherever it is, and nothing outside of it gets in."""

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from shoal import bundle
from shoal.bundle import BundleError, BundleFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name in ("a/b", "empty", ".git", "a/__pycache__"):
        (root / name).mkdir(parents=True)
    for name in ("main.py", "a/b/data.bin", ".git/config", "a/__pycache__/x.pyc", "a/note.txt"):
        (root / name).write_text(name)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "a/link").symlink_to("../main.py")
    return root


def digest(folder: Path) -> str:
    with bundle.pack(BundleFolder(folder)) as packed:
        return packed.digest


def names(folder: BundleFolder) -> list[str]:
    return [entry.name for entry in bundle.scan(folder)]


def test_a_bundle_holds_the_folder_as_it_is(folder: Path, tmp_path: Path) -> None:
    with bundle.pack(BundleFolder(folder), tmp_path) as packed:
        data = packed.path.read_bytes()
        assert packed.digest == hashlib.sha256(data).hexdigest()
        assert packed.size_bytes == len(data)
        with tarfile.open(packed.path) as archive:
            found = {
                item.name: (item.type, item.mode, item.linkname, item.uid, item.mtime, item.uname)
                for item in archive
            }
            assert list(found) == sorted(found)
    folder_mode = (folder / "empty").stat().st_mode & 0o777
    file_mode = (folder / "main.py").stat().st_mode & 0o777
    assert found == {
        "a": (tarfile.DIRTYPE, folder_mode, "", 0, 0, ""),
        "a/b": (tarfile.DIRTYPE, folder_mode, "", 0, 0, ""),
        "a/b/data.bin": (tarfile.REGTYPE, file_mode, "", 0, 0, ""),
        "a/link": (tarfile.SYMTYPE, 0o777, "../main.py", 0, 0, ""),
        "a/note.txt": (tarfile.REGTYPE, file_mode, "", 0, 0, ""),
        "empty": (tarfile.DIRTYPE, folder_mode, "", 0, 0, ""),
        "main.py": (tarfile.REGTYPE, file_mode, "", 0, 0, ""),
        "run.sh": (tarfile.REGTYPE, 0o755, "", 0, 0, ""),
    }


def test_equal_folders_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    first = digest(folder)
    os.utime(folder / "main.py", (1, 1))
    folder.rename(tmp_path / "elsewhere")
    assert digest(tmp_path / "elsewhere") == first
    (tmp_path / "elsewhere/main.py").write_text("other")
    assert digest(tmp_path / "elsewhere") != first


def test_b14_a_packed_bundle_is_gone_once_it_was_used(folder: Path, tmp_path: Path) -> None:
    with bundle.pack(BundleFolder(folder), tmp_path):
        assert len(list(tmp_path.glob("shoal-bundle-*"))) == 1
    assert list(tmp_path.glob("shoal-bundle-*")) == []
    with pytest.raises(KeyError), bundle.pack(BundleFolder(folder), tmp_path):
        raise KeyError("what the caller does with it")
    assert list(tmp_path.glob("shoal-bundle-*")) == []


def test_patterns_leave_files_out(folder: Path) -> None:
    (folder / bundle.IGNORE_FILE).write_text("# data\n*.bin\n/a/note.txt\nempty/\n")
    found = names(BundleFolder(folder, exclude=("run.*", "!a/b/data.bin")))
    assert found == [bundle.IGNORE_FILE, "a", "a/b", "a/b/data.bin", "a/link", "main.py"]


def test_names_of_every_kind_survive(tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    odd = ["ä ö", "new\nline", "x" * 200, " leading", "back\\slash", os.fsdecode(b"raw\xff")]
    for name in odd:
        (root / name).write_text("x")
    with (
        bundle.pack(BundleFolder(root), tmp_path) as packed,
        tarfile.open(packed.path, encoding="utf-8", errors="surrogateescape") as archive,
    ):
        assert sorted(archive.getnames()) == sorted(odd)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "b/../../../secret", "up/../x"])
def test_links_that_point_out_are_named(folder: Path, target: str) -> None:
    (folder / "a/up").symlink_to("..")  # inside by itself, but a way out with one more ..
    (folder / "a/out").symlink_to(target)
    with pytest.raises(BundleError, match=r"the link a/out points out of it, to "):
        bundle.scan(BundleFolder(folder))


def test_every_culprit_is_named(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "one").symlink_to("/one")
    (folder / "two").symlink_to("../two")
    with pytest.raises(BundleError) as caught:
        bundle.scan(BundleFolder(folder))
    for culprit in ("pipe is a device, socket or pipe", "link one points", "link two points"):
        assert culprit in str(caught.value)


def test_a_link_that_cannot_be_read_is_named() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(BundleError, match="the link exe cannot be read"):  # it has ended
            bundle.scan(BundleFolder(Path(f"/proc/{child.pid}")))


def test_dangling_links_and_loops_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "loop").symlink_to(".")
    assert names(BundleFolder(tmp_path)) == ["gone", "loop"]


@pytest.mark.parametrize("name", ["missing", "file", "x\0y", "n" * 5000])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BundleError, match="folder"),
        bundle.pack(BundleFolder(tmp_path / name), tmp_path),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_changes_meanwhile_is_refused(folder: Path, tmp_path: Path) -> None:
    entries = bundle.scan(BundleFolder(folder))
    (folder / "main.py").write_text("longer than it was before")
    with (tmp_path / "out").open("wb") as out, pytest.raises(BundleError, match=r"main\.py chang"):
        bundle.write(entries, out)


def test_k15_the_first_pattern_of_an_ignore_file_holds_behind_a_byte_order_mark(
    tmp_path: Path,
) -> None:
    """Or a secret travels."""
    root = tmp_path / "code"
    root.mkdir()
    (root / "main.py").write_text("")
    (root / "secret.env").write_text("TOKEN=1")
    (root / bundle.IGNORE_FILE).write_bytes(b"\xef\xbb\xbfsecret.env\r\n*.log\r\n")
    assert names(BundleFolder(root)) == [bundle.IGNORE_FILE, "main.py"]


def test_k15_an_ignore_file_that_is_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    """Or what it leaves out would travel."""
    root = tmp_path / "code"
    root.mkdir()
    (root / bundle.IGNORE_FILE).symlink_to("conf/ignore")
    with pytest.raises(bundle.BundleError, match="is a link to nothing"):
        names(BundleFolder(root))
