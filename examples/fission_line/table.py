"""Writes each number as a line of results/numbers.csv."""

from shoal import job


@job.stream
def table() -> None:
    """Write the file from its beginning, as a replacement has to."""
    with (job.context.results / "numbers.csv").open("w", encoding="utf-8") as file:
        for number in job.inputs["numbers"]:
            file.write(f"{number}\n")
