"""Network coordinates: how far any two members are from each other, without measuring each pair.

Vivaldi (Dabek et al., SIGCOMM 2004) with heights, plus the adjustment term of Lee et al.
(NSDI 2010) and gravity towards the origin (Ledlie et al., NSDI 2007), with the constants that
Serf's agents use, since a coordinate only means something among equals. All values in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.membership.dialect import pack, unpack
from services.membership.fields import fields
from services.membership.refusal import DropReason, RefusedError

if TYPE_CHECKING:
    from random import Random

DIMENSIONS: Final = 8
_VERSION: Final = 1
_ERROR_MAX: Final = 1.5
_CONFIDENCE_ERROR: Final = 0.25
_CONFIDENCE: Final = 0.25
_ADJUSTMENT_WINDOW: Final = 20
_HEIGHT_MIN: Final = 1e-5
_LATENCY_FILTER: Final = 3
_GRAVITY_RHO: Final = 150.0
_ZERO: Final = 1e-6
_ROUND_TRIP_MAX: Final = 10.0
_PEERS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A place in the network.

    Attributes:
        vector: Eight numbers.
        error: Confidence, 0 is sure and 1.5 knows nothing.
        adjustment: Correction for what the space cannot express.
        height: The access link, added to every distance.
    """

    vector: tuple[float, ...] = (0.0,) * DIMENSIONS
    error: float = _ERROR_MAX
    adjustment: float = 0.0
    height: float = _HEIGHT_MIN

    def distance(self, other: Coordinate) -> float:
        """Estimate the round trip between the two, in seconds."""
        raw = self.raw_distance(other)
        adjusted = raw + self.adjustment + other.adjustment
        return adjusted if adjusted > 0.0 else raw

    def raw_distance(self, other: Coordinate) -> float:
        """The distance without the adjustments."""
        return math.dist(self.vector, other.vector) + self.height + other.height

    def pushed(self, force: float, other: Coordinate, rng: Random) -> Coordinate:
        """Move away from `other` by `force` seconds (towards it if negative)."""
        apart = math.dist(self.vector, other.vector)
        if apart > _ZERO:
            unit = [
                (mine - theirs) / apart
                for mine, theirs in zip(self.vector, other.vector, strict=True)
            ]
            height = (self.height + other.height) * force / apart + self.height
            height = max(height, _HEIGHT_MIN)
        else:
            # Two at one place part in a random direction.
            around = [rng.random() - 0.5 for _ in self.vector]
            length = math.hypot(*around) or 1.0
            unit = [value / length for value in around]
            height = self.height
        vector = tuple(value + force * step for value, step in zip(self.vector, unit, strict=True))
        return Coordinate(vector, self.error, self.adjustment, height)

    @property
    def valid(self) -> bool:
        """Whether every component is a finite number, and there are eight."""
        numbers = (*self.vector, self.error, self.adjustment, self.height)
        return len(self.vector) == DIMENSIONS and all(map(math.isfinite, numbers))


class Coordinates:
    """This member's coordinate, and the last ones received of others.

    Args:
        rng: The source of chance.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.own = Coordinate()
        self.peers: dict[str, Coordinate] = {}
        self._origin = Coordinate()
        self._samples: deque[float] = deque([0.0] * _ADJUSTMENT_WINDOW, _ADJUSTMENT_WINDOW)
        self._latencies: dict[str, deque[float]] = {}

    def observe(self, name: str, payload: bytes, seconds: float) -> None:
        """Take a measured round trip to `name`, and the coordinate its answer carried."""
        if not payload:
            return
        try:
            other = decode_coordinate(payload)
        except RefusedError:
            return
        if not 0.0 <= seconds <= _ROUND_TRIP_MAX:
            return
        if name not in self.peers and len(self.peers) >= _PEERS_MAX:
            self.forget(next(iter(self.peers)))
        self.peers[name] = other
        recent = self._latencies.setdefault(name, deque(maxlen=_LATENCY_FILTER))
        recent.append(seconds)
        median = sorted(recent)[len(recent) // 2]
        self._update(other, max(median, _ZERO))

    def forget(self, name: str) -> None:
        """A member is gone."""
        self.peers.pop(name, None)
        self._latencies.pop(name, None)

    def _update(self, other: Coordinate, seconds: float) -> None:
        own = self.own
        distance = own.distance(other)
        wrong = abs(distance - seconds) / seconds
        total = max(own.error + other.error, _ZERO)
        weight = own.error / total
        share = _CONFIDENCE_ERROR * weight
        error = min(wrong * share + own.error * (1.0 - share), _ERROR_MAX)
        force = _CONFIDENCE * weight * (seconds - distance)
        moved = Coordinate(own.vector, error, own.adjustment, own.height)
        moved = moved.pushed(force, other, self._rng)
        self._samples.append(seconds - moved.raw_distance(other))
        adjustment = sum(self._samples) / (2.0 * _ADJUSTMENT_WINDOW)
        moved = Coordinate(moved.vector, moved.error, adjustment, moved.height)
        far = moved.distance(self._origin)
        moved = moved.pushed(-((far / _GRAVITY_RHO) ** 2), self._origin, self._rng)
        self.own = moved if moved.valid else Coordinate()


def encode_coordinate(coordinate: Coordinate) -> bytes:
    """Write a coordinate as acknowledgements carry it: a version byte and a map."""
    return bytes((_VERSION,)) + pack(coordinate_body(coordinate))


def coordinate_body(coordinate: Coordinate) -> dict[str, float | list[float]]:
    """The map of a coordinate."""
    return {
        "Adjustment": coordinate.adjustment,
        "Error": coordinate.error,
        "Height": coordinate.height,
        "Vec": list(coordinate.vector),
    }


def decode_coordinate(payload: bytes) -> Coordinate:
    """Read the coordinate of an acknowledgement.

    Raises:
        RefusedError: Another version, malformed, or not finite.
    """
    if not payload or payload[0] != _VERSION:
        raise RefusedError(DropReason.MALFORMED, "coordinate of an unknown version")
    names = (b"Vec", b"Error", b"Adjustment", b"Height")
    vector, error, adjustment, height = fields(unpack(memoryview(payload)[1:]), names)
    if not isinstance(vector, list) or len(vector) != DIMENSIONS:  # pyright: ignore[reportUnknownArgumentType]
        raise RefusedError(DropReason.MALFORMED, f"coordinate has not {DIMENSIONS} dimensions")
    components: list[object] = vector  # pyright: ignore[reportUnknownVariableType]
    numbers = [_finite(value) for value in (*components, error, adjustment, height)]
    return Coordinate(tuple(numbers[:DIMENSIONS]), *numbers[DIMENSIONS:])


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RefusedError(DropReason.MALFORMED, "coordinate holds something that is no number")
    if not math.isfinite(value):
        raise RefusedError(DropReason.OUT_OF_RANGE, "coordinate holds a number that is not finite")
    return float(value)
