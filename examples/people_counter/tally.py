"""How many people were in which frame, as a file and as a table."""

import statistics
from dataclasses import dataclass

from boxes import Box

HEADER = "frame,seconds,people,boxes"


@dataclass(frozen=True)
class Row:
    """One frame."""

    frame: int
    seconds: float
    boxes: list[Box]

    def line(self) -> str:
        """As in people.csv; a box is `left top width height`, and boxes are parted by `;`."""
        boxes = ";".join(" ".join(map(str, box)) for box in self.boxes)
        return f"{self.frame},{self.seconds:.2f},{len(self.boxes)},{boxes}"


def csv(rows: list[Row]) -> str:
    """All frames, one a line; the same bytes each time."""
    return "".join(f"{line}\n" for line in [HEADER, *(row.line() for row in rows)])


def table(rows: list[Row], frames_a_line: int = 10) -> str:
    """The median number of people over some frames, drawn as well."""
    lines = ["    frames      seconds   people"]
    for begin in range(0, len(rows), frames_a_line):
        group = rows[begin : begin + frames_a_line]
        people = statistics.median_low(len(row.boxes) for row in group)
        frames = f"{group[0].frame}-{group[-1].frame}"
        seconds = f"{group[0].seconds:.1f}-{group[-1].seconds:.1f}"
        lines.append(f"{frames:>10} {seconds:>12} {people:>8}  {'#' * people}")
    total = sum(len(row.boxes) for row in rows)
    mean = total / len(rows) if rows else 0.0
    lines.append(f"{len(rows)} frames, {total} sightings, {mean:.2f} people a frame")
    return "\n".join(lines)
