"""A folder as a job may leave it: everything that a file system allows and few programs expect."""

import os
import stat
from pathlib import Path

SPARSE_BYTES = 1 << 40


def nasty_tree(folder: Path, *, beyond: Path, many: int = 2_000, depth: int = 300) -> None:
    """Make it.

    Args:
        folder: where; made if it is missing.
        beyond: a folder that links in it lead to.
        many: how many files lie in one of its folders.
        depth: how many folders lie in one another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (b"a\nb", b"tab\t", b"\xff\xfe", b"\\", b" ", b"-rf", b"*", b"x" * 255, b"\x1b[2J"):
        (folder / os.fsdecode(name)).write_bytes(b"x")
        (folder / os.fsdecode(b"d" + name[:250])).mkdir()
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "socket", 0o600 | stat.S_IFSOCK)
    (folder / "loop").symlink_to("loop")
    (folder / "self").symlink_to(".")
    (folder / "out").symlink_to(beyond)
    (folder / "nothing").symlink_to("/nonexistent/x")
    with (folder / "sparse").open("wb") as file:
        try:
            file.truncate(SPARSE_BYTES)
        except OSError:
            file.truncate(1 << 33)  # a file system with smaller files
    (folder / "many").mkdir()
    for number in range(many):
        (folder / "many" / str(number)).touch()
    deep_folder(folder, "deep", depth)
    closed = folder / "closed" / "below"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    (closed / "file").chmod(0)
    closed.chmod(0)
    closed.parent.chmod(0)


def deep_folder(folder: Path, name: str, depth: int, file: str = "") -> None:
    """Make so many folders of a name in one another, with a file in the last one if it is named."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    if file:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
