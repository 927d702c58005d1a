"""Counts the people of all frames, in order: people.csv, a contact sheet, and a table on stdout."""

from typing import Any

import cv2
import numpy as np
from boxes import Box
from tally import Row, csv, table

from shoal import job

FRAMES_A_PICTURE = 9
PICTURES_A_LINE = 4
GREEN = (0, 255, 0)
BLACK = (0, 0, 0)
WHITE = (255, 255, 255)


class Counter:
    """Keeps all rows, so its replacement begins anew: `recovery: restart`, the default."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.pictures: list[Any] = []

    def run(self, found: dict[str, Any]) -> None:
        """Take one frame; they come in the order of the video, whichever detector had them."""
        row = Row(found["frame"], found["seconds"], found["boxes"])
        if row.frame != len(self.rows):
            raise SystemExit(f"frame {row.frame} came where {len(self.rows)} was due")
        if row.frame % FRAMES_A_PICTURE == 0:
            self.pictures.append(annotated(found["thumbnail"], row, found["size"]))
        self.rows.append(row)
        job.progress(f"{len(self.rows)} frames, {len(row.boxes)} people now")

    def finish(self) -> None:
        """Write what the pipeline is for."""
        results = job.context.results
        (results / "people.csv").write_text(csv(self.rows), encoding="utf-8", newline="")
        if self.pictures:
            cv2.imwrite(str(results / "contact_sheet.jpg"), contact_sheet(self.pictures))
        print(table(self.rows))


def annotated(picture: Any, row: Row, size: tuple[int, int]) -> Any:
    """Draw boxes, time and count on a small picture of a frame of that size (width, height)."""
    picture = np.ascontiguousarray(picture)
    across = picture.shape[1] / size[0]
    down = picture.shape[0] / size[1]
    for box in row.boxes:
        corners = scaled(box, across, down)
        cv2.rectangle(picture, corners[:2], corners[2:], GREEN, 1)
    words = f"{row.seconds:.1f} s: {len(row.boxes)}"
    for colour, width in ((BLACK, 3), (WHITE, 1)):
        cv2.putText(picture, words, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width)
    return picture


def scaled(box: Box, across: float, down: float) -> tuple[int, int, int, int]:
    """Two corners of a box in the small picture."""
    left, top, width, height = box
    return (
        round(left * across),
        round(top * down),
        round((left + width) * across),
        round((top + height) * down),
    )


def contact_sheet(pictures: list[Any]) -> Any:
    """Pictures of one size beside and below one another."""
    pictures = list(pictures)
    while len(pictures) % PICTURES_A_LINE:
        pictures.append(np.zeros_like(pictures[0]))
    lines = [
        np.hstack(pictures[begin : begin + PICTURES_A_LINE])
        for begin in range(0, len(pictures), PICTURES_A_LINE)
    ]
    return np.vstack(lines)


if __name__ == "__main__":
    job.run(Counter)
