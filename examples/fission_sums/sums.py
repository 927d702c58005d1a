"""Adds the numbers up, five at a time, as `block_count: 5` in the specification says."""

from shoal import job


class Sums:
    """Writes one sum a line to results/sums.txt, and to stdout."""

    def setup(self) -> None:
        """Open the file."""
        self.file = (job.context.results / "sums.txt").open("w", encoding="utf-8")

    def run(self, products: list[int]) -> None:
        """Add up the next five; the last few may be fewer."""
        line = str(sum(products))
        print(line)
        self.file.write(f"{line}\n")

    def finish(self) -> None:
        """Close the file."""
        self.file.close()


if __name__ == "__main__":
    job.run(Sums)
