"""Hiding secrets in a log once its program has ended: what is archived, and kept for people.

**Rule.** A log with secrets is replaced by one of the same size without them, in one step. Why not in its place: it is
still being shipped, and the power may fail; half of a value beside the stars of its other half would be found no more.
A log without secrets is left alone.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.long_work import Steps
from edge_agent.secrets.secret_mask import SecretMask
from edge_agent.tree import open_plain
from services.runtime.state_folder import PRIVATE_FILE

_CHUNK_BYTES: Final = 1 << 20


def mask_file(path: Path, mask: SecretMask, chunk_bytes: int = _CHUNK_BYTES) -> Steps[None]:
    """Hide secrets in a file; doing it twice is the same as once.

    Args:
        path: the file, in a folder that only the agent may change.
        mask: knows the secrets.
        chunk_bytes: how much is looked at in one step.

    Raises:
        NoPlainFileError: something else has the name of the file.
        OSError: it cannot be read, or there is no room for another one.
    """
    if not mask:
        return
    source = open_plain(path)
    try:
        read = _reader(source, mask)
        for offset in range(0, os.fstat(source).st_size, chunk_bytes):
            plain, hidden = read(offset, chunk_bytes)
            if hidden != plain:
                yield from _replace(path, source, read, chunk_bytes)
                return
            yield
    finally:
        os.close(source)


def _reader(source: int, mask: SecretMask) -> Callable[[int, int], tuple[bytes, bytes]]:
    """Return what reads a piece as it is and as it is shown; values reach over its borders."""
    size = os.fstat(source).st_size

    def read(offset: int, count: int) -> tuple[bytes, bytes]:
        begin = max(0, offset - mask.margin)
        data = os.pread(source, min(offset + count + mask.margin, size) - begin, begin)
        shown = mask.hide(data, ended=begin + len(data) >= size)
        piece = slice(offset - begin, offset - begin + count)
        return data[piece], shown[piece]

    return read


def _replace(
    path: Path, source: int, read: Callable[[int, int], tuple[bytes, bytes]], chunk_bytes: int
) -> Steps[None]:
    status = os.fstat(source)
    target = path.with_name(f"{path.name}.masked")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(target, flags, PRIVATE_FILE), "wb") as file:
            for offset in range(0, status.st_size, chunk_bytes):
                file.write(read(offset, chunk_bytes)[1])
                yield
            file.flush()
            os.fsync(file.fileno())
            # When it was printed is told by this.
            os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        target.replace(path)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
