"""Writes one number a line; each record is four bytes, because the program before it knows no others."""

import struct
from typing import TextIO

from shoal import job


class Table:
    """results/squares.txt."""

    def setup(self) -> None:
        """Open the file; results/ is archived when the job has succeeded."""
        self.file: TextIO = (job.context.results / "squares.txt").open("w")

    def run(self, squares: bytes) -> None:
        """Write one number."""
        (square,) = struct.unpack("=I", squares)
        self.file.write(f"{square}\n")

    def finish(self) -> None:
        """Close the file."""
        self.file.close()


if __name__ == "__main__":
    job.run(Table)
