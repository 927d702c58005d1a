"""The part of the SDK that job code imports, copied to where any interpreter may read it.

A job's Python is not the agent's, so it gets `shoal/__init__.py` and `shoal/job` alone, by content.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def copy_sdk(package: Path, folder: Path, copy_id: str) -> Path:
    """Copy the job library below `folder` unless it is there, and return the folder for PYTHONPATH.

    Args:
        package: the installed package `shoal`.
        folder: where copies live, by the hash of their content.
        copy_id: tells an unfinished copy from those of others.
    """
    files = sorted(_files(package))
    digest = hashlib.sha256()
    for path in files:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(package)}\0{len(data)}\0".encode())
        digest.update(data)
    place = folder / digest.hexdigest()[:32]
    if place.exists():
        return place
    unfinished = folder / f"{place.name}.{copy_id}"
    for path in files:
        target = unfinished / "shoal" / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    try:
        unfinished.rename(place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(unfinished)
    return place


def _files(package: Path) -> Iterator[Path]:
    yield package / "__init__.py"
    for parent, folders, names in os.walk(package / "job"):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(parent, name) for name in names if name.endswith(".py"))
