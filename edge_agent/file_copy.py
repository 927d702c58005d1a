"""Copies of files and folders, in steps."""

import hashlib
import os
from pathlib import Path
from typing import Final

from edge_agent.long_work import Steps

_CHUNK_BYTES: Final = 1 << 20


def copy_file(path: Path, target: Path) -> Steps[str]:
    """Copy a file durably, its rights too; return the SHA-256 of what was copied.

    Raises:
        OSError: it cannot be read, or the disk does not take it.
    """
    digest = hashlib.sha256()
    with path.open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
            yield
        copy.flush()
        os.fchmod(copy.fileno(), 0o777 & os.fstat(source.fileno()).st_mode)
        os.fsync(copy.fileno())
    return digest.hexdigest()


def copy_tree(folder: Path, target: Path) -> Steps[None]:
    """Copy a folder with its links to a new one, in which its owner may write.

    Raises:
        OSError: something cannot be read, is there already, or the disk does not take it.
    """
    rest = [(folder, target)]
    while rest:
        source, copy = rest.pop()
        copy.mkdir()
        with os.scandir(source) as entries:
            for entry in entries:
                yield
                place = copy / entry.name
                if entry.is_symlink():
                    place.symlink_to(Path(entry.path).readlink())
                elif entry.is_dir():
                    rest.append((Path(entry.path), place))
                elif entry.is_file():
                    yield from copy_file(Path(entry.path), place)
