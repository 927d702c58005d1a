"""Boxes around people: (left, top, width, height) in pixels."""

Box = tuple[int, ...]

LEAST_WEIGHT = 1.4  # of the detector; below it, lamp posts and windows are people too
MOST_OVERLAP = 0.5


def strongest(boxes: list[Box], weights: list[float]) -> list[Box]:
    """Drop weak boxes and those that mostly lie on a stronger one; from left to right.

    The detector finds the same person at several sizes. The order is always the same.
    """
    ranked = sorted(
        (-weight, box) for weight, box in zip(weights, boxes, strict=True) if weight >= LEAST_WEIGHT
    )
    kept: list[Box] = []
    for _, box in ranked:
        if all(overlap(box, other) <= MOST_OVERLAP for other in kept):
            kept.append(box)
    return sorted(kept)


def overlap(one: Box, other: Box) -> float:
    """The area that two boxes share, as a part of the smaller one: 0 to 1."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min(one[2] * one[3], other[2] * other[3])
