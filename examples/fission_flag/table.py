"""Writes number, sum and flag to results/sums.csv, and tells the first number that was enough."""

from shoal import job


class Table:
    """One row a round."""

    def setup(self) -> None:
        """Open the file."""
        self.file = (job.context.results / "sums.csv").open("w", encoding="utf-8")
        self.enough = False

    def run(self, numbers: int, sums: tuple[int, bool]) -> None:
        """Write the next row; the k-th number and the k-th sum come together."""
        total, reached = sums
        self.file.write(f"{numbers},{total},{int(reached)}\n")
        if reached and not self.enough:
            self.enough = True
            print(f"the sum is {total} with {numbers}")

    def finish(self) -> None:
        """Close the file."""
        self.file.close()


if __name__ == "__main__":
    job.run(Table)
