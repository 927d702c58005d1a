"""Decodes the video, and sends every frame as it is: 768x576 pixels, three bytes each."""

from collections.abc import Iterator
from typing import Any

import cv2

from shoal import job

VIDEO = "pedestrians.avi"


@job.source
def camera() -> Iterator[dict[str, Any]]:
    """Yield number, time and picture of each frame."""
    video = cv2.VideoCapture(VIDEO)
    if not video.isOpened():
        raise SystemExit(f"{VIDEO} cannot be read: is it in the bundle?")
    frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = video.get(cv2.CAP_PROP_FPS)
    for number in range(frames):
        there, picture = video.read()
        if not there:
            raise SystemExit(f"{VIDEO} breaks off at frame {number} of {frames}")
        job.progress(f"frame {number + 1} of {frames}")
        yield {"frame": number, "seconds": number / rate, "picture": picture}
