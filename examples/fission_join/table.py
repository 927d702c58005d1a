"""Writes every record, a list, as a line of a CSV file whose name is the first argument."""

import csv
import sys
from collections.abc import Sequence

from shoal import job


class Table:
    """One row a round; the file lies in results/, so that it is archived."""

    def setup(self) -> None:
        """Open the file."""
        self.file = (job.context.results / sys.argv[1]).open("w", encoding="utf-8", newline="")
        self.writer = csv.writer(self.file, lineterminator="\n")

    def run(self, rows: Sequence[object]) -> None:
        """Write the next row."""
        self.writer.writerow(rows)

    def finish(self) -> None:
        """Close the file."""
        self.file.close()


if __name__ == "__main__":
    job.run(Table)
