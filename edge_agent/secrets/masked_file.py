"""Hiding secrets in a file where it lies, once its program has ended: it is archived, and kept for people."""

import os
import stat
from pathlib import Path
from typing import Final

from edge_agent.long_work import Steps
from edge_agent.secrets.secret_mask import SecretMask
from edge_agent.tree import NoPlainFileError, kind

_CHUNK_BYTES: Final = 1 << 20
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def mask_file(path: Path, mask: SecretMask, chunk_bytes: int = _CHUNK_BYTES) -> Steps[None]:
    """Hide secrets in a file; its size stays as it is, and doing it twice is the same as once.

    Each value lies whole in the window of the chunk in which it begins. Only what is hidden is written.

    Args:
        path: the file.
        mask: knows the secrets.
        chunk_bytes: how much is looked at in one step.

    Raises:
        NoPlainFileError: something else has the name of the file.
        OSError: it cannot be read or written.
    """
    if not mask:
        return
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise NoPlainFileError(0, f"it is a {kind(mode)}")
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NoPlainFileError(0, f"it is a {kind(status.st_mode)}")
        for offset in range(0, status.st_size, chunk_bytes):
            data = os.pread(descriptor, chunk_bytes + mask.margin, offset)
            ended = offset + len(data) >= status.st_size
            hidden = mask.hide(data, ended=ended)
            for begin, end in mask.spans(data, ended=ended) if hidden != data else ():
                os.pwrite(descriptor, hidden[begin:end], offset + begin)
            yield
    finally:
        os.close(descriptor)
