"""Files that are kept open: what is read is what they say now, and a bounded number is open."""

import os
from pathlib import Path

from edge_agent.sandbox.kept_files import KeptFiles


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_reads_what_a_file_says_each_time(tmp_path: Path) -> None:
    files, path = KeptFiles(), tmp_path / "pids.current"
    assert files.read(str(path)) is None
    path.write_text("1\n")
    assert files.read(str(path)) == b"1\n"
    path.write_text("23\n")
    assert files.read(str(path)) == b"23\n"
    files.close()


def test_keeps_a_bounded_number_open_and_closes_them(tmp_path: Path) -> None:
    files, before = KeptFiles(), _open_files()
    for number in range(300):
        (tmp_path / str(number)).write_text(str(number))
        assert files.read(str(tmp_path / str(number))) == str(number).encode()
    assert _open_files() - before == 128
    assert files.read(str(tmp_path / "0")) == b"0"
    files.close()
    assert _open_files() == before
    assert files.read(str(tmp_path / "1")) == b"1"
    files.close()
