"""What the keeper remembers of one process, and how it crosses the socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process that the keeper started: a job's program, or a helper that must outlive the agent.

    Times are seconds since the epoch, for people; deadlines inside the keeper are monotonic.
    `exit_code` is None while it runs or when a signal ended it. `lease_ended` says that it was ended
    because nobody renewed its lease, `problem` why records of its FIFOs may be missing, `left` which
    processes of it could not be ended, and why.
    """

    attempt: str
    pid: int
    helper: bool = False
    running: bool = True
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    start_time: float = 0.0
    end_time: float = 0.0
    lease_ended: bool = False
    problem: str = ""
    left: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the object that travels on the socket."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, object]) -> ProcessRecord:
        """Read what `to_json` wrote.

        Raises:
            ValueError: A field is missing or has the wrong type.
        """
        try:
            return ProcessRecord(
                attempt=_as(str, value["attempt"]),
                pid=_as(int, value["pid"]),
                helper=_as(bool, value["helper"]),
                running=_as(bool, value["running"]),
                exit_code=_optional(value["exit_code"]),
                signal=_optional(value["signal"]),
                timed_out=_as(bool, value["timed_out"]),
                # A keeper that an older agent started knows less.
                lease_ended=_as(bool, value.get("lease_ended", False)),
                problem=_as(str, value.get("problem", "")),
                left=_as(str, value.get("left", "")),
                start_time=_as(float, value["start_time"]),
                end_time=_as(float, value["end_time"]),
            )
        except KeyError as error:
            raise ValueError(f"a process record lacks the field {error}") from None


def _as(kind: type[T], value: object) -> T:
    if kind is float and isinstance(value, int):
        return cast("T", float(value))
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} in a process record is not a {kind.__name__}")  # noqa: TRY004
    return value


def _optional(value: object) -> int | None:
    return None if value is None else _as(int, value)
