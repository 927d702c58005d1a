"""The small files of a machine under a folder that stands for its `/`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BYTES_MAX: Final = 64 << 10


class MachineFiles:
    """Reads files that may not be there, or may not be read.

    Args:
        root: the folder that stands for `/`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        """Where a path of the machine lies."""
        return self.root / path.lstrip("/")

    def text(self, *paths: str | Path) -> str:
        """Return what the first of these files holds that can be read, at most 64 KiB; empty if none can."""
        for path in paths:
            try:
                with (self.at(path) if isinstance(path, str) else path).open("rb") as file:
                    return file.read(_BYTES_MAX).decode(errors="replace")
            except OSError:
                continue  # it is not there, or only root may read it, or its driver failed
        return ""

    def found(self, folder: str | Path, pattern: str) -> Iterator[Path]:
        """Return what lies in a folder and matches, sorted; links are not followed further down."""
        where = self.at(folder) if isinstance(folder, str) else folder
        try:
            yield from sorted(where.glob(pattern))
        except OSError:
            return
