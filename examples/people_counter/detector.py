"""Finds the people in a frame, with the detector that OpenCV brings along.

It keeps nothing from one frame to the next and sends one record for each, so the pipeline says
`recovery: resume`: when its board dies, a replacement goes on with the frames that are missing.
"""

from typing import Any

import cv2
from boxes import strongest

from shoal import job

ENLARGE = 1.5  # the detector knows people from 128 pixels of height on; here some have 90
THUMBNAIL = (256, 192)


@job.main
class Detector:
    """A histogram of oriented gradients, and a support vector machine trained on pedestrians."""

    def setup(self) -> None:
        """Load the detector."""
        cv2.setNumThreads(1)  # the same sums in the same order, and one core as asked for
        self.hog = cv2.HOGDescriptor()
        self.hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def run(self, frames: dict[str, Any]) -> dict[str, Any]:
        """Send on the frame's number, the boxes around people in pixels, and a small picture."""
        picture = frames["picture"]
        large = cv2.resize(picture, None, fx=ENLARGE, fy=ENLARGE)
        found, weights = self.hog.detectMultiScale(
            large, winStride=(8, 8), padding=(8, 8), scale=1.03
        )
        boxes = strongest(
            [tuple(int(side / ENLARGE) for side in box) for box in found],
            [float(weight) for weight in weights],
        )
        job.progress(f"frame {frames['frame']}: {len(boxes)} people")
        height, width = picture.shape[:2]
        return {
            "frame": frames["frame"],
            "seconds": frames["seconds"],
            "size": (width, height),
            "boxes": boxes,
            "thumbnail": cv2.resize(picture, THUMBNAIL, interpolation=cv2.INTER_AREA),
        }
