"""How a pipeline ended: the words for people, and the status for the shell."""

import contextlib
from collections.abc import Callable, Iterable

import click

from shoal.cli.figures import state_word
from shoal.cli.progress import first_sentence
from shoal.cli.streams import warnings
from shoal.cli.tables import artifacts_table, show
from shoal.client import Client
from shoal.model import JobState, PipelineState, ReasonCode
from shoal.view import JobView, LogStream, PipelineView

_TAIL_BYTES = 2_000
_TAIL_LINES = 40

# The program ran, so that its stderr says more than we can.
_OWN_END = {ReasonCode.EXIT, ReasonCode.SIGNAL, ReasonCode.TIMEOUT}


def exit_status(pipeline: PipelineView) -> int:
    """0 when everything succeeded, else 1."""
    return 0 if pipeline.state is PipelineState.SUCCEEDED else 1


async def show_outcome(
    client: Client,
    pipeline: PipelineView,
    *,
    logs_shown: bool,
    said_last: Callable[[str], bool] = lambda _: True,
) -> None:
    """Write how a pipeline ended, why, and what it left.

    With `logs_shown` the logs went to stdout and stderr already: everything goes to stderr then,
    and the end of a failed job's stderr is not repeated, if `said_last` knows it: of a very long
    log only the beginning is shown live.
    """
    for job in failed(pipeline.jobs):
        alone = len(pipeline.jobs) == 1
        click.echo(failure(job, alone=alone), err=True)
        more = job.reason.message.strip().partition("\n")[2]
        if job.reason.code in _OWN_END:
            if logs_shown:
                more = "" if said_last(more) else f"(its log is longer; the end is)\n{more}"
            else:
                more = more or await _stderr_tail(client, job)
        if more:
            click.echo(click.style(more, dim=True), err=True)
    if pipeline.state is PipelineState.CANCELLED:
        why = pipeline.reason.message.strip()
        click.echo(f"cancelled: {why}" if why else "cancelled", err=True)
    if any(job.artifacts for job in pipeline.jobs):
        show(artifacts_table(pipeline.jobs), stderr=logs_shown)
    show_warnings(pipeline)
    last = f"{pipeline.name} {state_word(pipeline.state)}"
    if pipeline.final_event_id:
        last += f", event {pipeline.final_event_id}"
    click.echo(last, err=True)


def show_warnings(pipeline: PipelineView) -> None:
    """Write to stderr what makes the results of a pipeline doubtful, however it ended."""
    for line in warnings(pipeline.jobs):
        click.echo(line, err=True)


def failed(jobs: Iterable[JobView]) -> tuple[JobView, ...]:
    """Pick the jobs that failed by themselves."""
    return tuple(job for job in jobs if job.state is JobState.FAILED)


def failure(job: JobView, *, alone: bool) -> str:
    """`failed: EXIT 3: …`, with the job's name unless it is alone."""
    words = ["failed"] if alone else ["failed", job.id]
    words.append(job.reason.short or "no reason given")
    sentence = first_sentence(job.reason.message)
    if sentence:
        words.append(sentence)
    return ": ".join(words)


async def _stderr_tail(client: Client, job: JobView) -> str:
    """Read the end of what the last attempt of a job said on stderr."""
    last = job.attempts[-1].name if job.attempts else ""
    data = b""
    async with contextlib.aclosing(client.logs(job.name, tail_lines=_TAIL_LINES)) as chunks:
        async for chunk in chunks:
            if chunk.stream is LogStream.STDERR and chunk.attempt == last:
                data = (data + chunk.data)[-_TAIL_BYTES:]
    return data.decode("utf-8", "replace").rstrip()
