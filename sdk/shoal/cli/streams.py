"""What people have to know about the streams of a job: which stand still, and what went wrong."""

from collections.abc import Sequence
from datetime import timedelta

from shoal.cli.figures import counted, duration_text
from shoal.model import StreamCounters
from shoal.view import JobView

_BLOCKED_SECONDS = 2.0  # less than that is how streams are


def blocked(job: JobView) -> str:
    """Say which stream of a job stands still and for how long; nothing if all of them move."""
    still = [one for one in job.streams if one.blocked_seconds >= _BLOCKED_SECONDS]
    if job.state.terminal or not still:
        return ""
    longest = max(still, key=lambda one: one.blocked_seconds)
    return f"{longest.port} blocked for {duration_text(timedelta(seconds=longest.blocked_seconds))}"


def warnings(jobs: Sequence[JobView]) -> tuple[str, ...]:
    """Say what makes the results of jobs doubtful although they ended well, a line each.

    Returns:
        Lines that begin with `warning: JOB.PORT:`.
    """
    return tuple(
        f"warning: {job.id}.{stream.port}: its producer was run again and sent other records than "
        f"before ({counted(stream.mismatches, 'lane')}); what {job.id} has made of them "
        "mixes both: a job that is run again has to send the same records"
        for job in jobs
        for stream in job.streams
        if stream.mismatches
    )


def remarks(jobs: Sequence[JobView]) -> tuple[str, ...]:
    """Say everything that is to be said about the streams of jobs, a line each.

    Returns:
        Lines that begin with `JOB.PORT:`; warnings first.
    """
    lines: list[str] = []
    for job in jobs:
        for stream in job.streams:
            name = f"{job.id}.{stream.port}"
            if stream.blocked_seconds >= _BLOCKED_SECONDS and not job.state.terminal:
                lines.append(f"{name}: {_why_blocked(job, stream)}")
            if stream.refused:
                lines.append(
                    f"{name}: {counted(stream.refused, 'call')} refused, since an attempt that was "
                    "replaced, or news of it, came late"
                )
            if stream.broken:
                lines.append(
                    f"{name}: broke {counted(stream.broken, 'time')}: something came that was not "
                    "sent so (a gap, a wrong checksum); it was fetched again"
                )
    return (*warnings(jobs), *lines)


def _why_blocked(job: JobView, stream: StreamCounters) -> str:
    still = f"blocked for {duration_text(timedelta(seconds=stream.blocked_seconds))}"
    if stream.output:
        return f"{still}: a consumer does not take what {job.id} sends"
    return f"{still}: the program of {job.id} does not read it"
