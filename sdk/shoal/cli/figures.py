"""Numbers, times and states as people like to read them."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from shoal.model import JobState, MemberState, PipelineState, ScaleState
from shoal.parameter import ParameterValue, shown_value
from shoal.redaction import redacted
from shoal.view import ScaleView

# By name, since the numbers of the enumerations overlap and mean different things.
_STYLES = {
    "RUNNING": "cyan",
    "DRAINING": "cyan",
    "ARCHIVING": "cyan",
    "SUCCEEDED": "green",
    "ALIVE": "green",
    "FAILED": "red",
    "LOST": "red",
    "DEAD": "red",
    "CANCELLED": "yellow",
    "RETRY_WAIT": "yellow",
    "SUSPECT": "yellow",
}


def state_word(state: JobState | PipelineState | MemberState) -> str:
    """`retry wait`."""
    return state.name.lower().replace("_", " ")


def state_style(state: JobState | PipelineState | MemberState) -> str:
    """Name the colour of a state; empty for none."""
    return _STYLES.get(state.name, "")


def path_text(path: str) -> str:
    """A path for people: what is no character to be seen, a line break too, is written out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in path)


def values_lines(values: Mapping[str, ParameterValue]) -> list[str]:
    """`with limit=20`: a line for each parameter that was put into a specification."""
    return [redacted(f"with {name}={shown_value(value)}") for name, value in values.items()]


def bytes_text(size: float) -> str:
    """`1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def count_text(number: float) -> str:
    """`1,234`, `1.2 M`."""
    if abs(number) < 100_000:
        return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
    return f"{number / 1e6:,.1f} M"


def counted(number: int, noun: str) -> str:
    """`1 job`, `1,234 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration_text(passed: timedelta) -> str:
    """`12 s`, `3 min`, `5 h`, `2 d`."""
    seconds = max(0.0, passed.total_seconds())
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3_600, 48)):
        if seconds < limit * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def age_text(since: datetime | None, now: datetime) -> str:
    """Say how long ago something was; empty if it was not."""
    return "" if since is None else duration_text(now - since)


def scale_text(scale: ScaleView) -> str:
    """Say in a sentence where a change of replicas stands."""
    number = counted(scale.replicas, "replica")
    match scale.state:
        case ScaleState.HOLDING:
            return f"{scale.job} is being given {number}"
        case ScaleState.SETTLED:
            return f"{scale.job} got {number}; each of those before ends after round {scale.rounds}"
        case ScaleState.ABANDONED:
            return f"{scale.job} was not given {number}: {scale.message}"
