"""The part of the SDK that job code imports, copied to where any interpreter may read it.

A job's Python is not the agent's, so it gets `shoal/__init__.py` and `shoal/job` alone, by content.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


class SdkCopy:
    """The folder for PYTHONPATH; made when a program first needs it, so that a start writes nothing.

    Args:
        package: the installed package `shoal`.
        folder: where copies live, by the hash of their content.
        copy_id: draws what tells an unfinished copy from those of others.
    """

    def __init__(self, package: Path, folder: Path, copy_id: Callable[[], str]) -> None:
        self._package = package
        self._folder = folder
        self._copy_id = copy_id
        self._place: Path | None = None

    def path(self) -> Path:
        """Return the folder, with the job library in it.

        Raises:
            OSError: it cannot be written.
        """
        if self._place is None or not self._place.exists():
            self._place = self._copy()
        return self._place

    def _copy(self) -> Path:
        files = sorted(_files(self._package))
        digest = hashlib.sha256()
        for path in files:
            data = path.read_bytes()
            digest.update(f"{path.relative_to(self._package)}\0{len(data)}\0".encode())
            digest.update(data)
        place = self._folder / digest.hexdigest()[:32]
        if place.exists():
            return place
        unfinished = self._folder / f"{place.name}.{self._copy_id()}"
        try:
            for path in files:
                target = unfinished / "shoal" / path.relative_to(self._package)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            unfinished.rename(place)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not place.exists():
                raise
        return place


def _files(package: Path) -> Iterator[Path]:
    yield package / "__init__.py"
    for parent, folders, names in os.walk(package / "job"):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(parent, name) for name in names if name.endswith(".py"))
