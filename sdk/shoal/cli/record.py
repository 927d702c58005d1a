"""`shoal record`: a stream as a file."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion, naming
from shoal.cli.chosen_pipeline import chosen, one_replica
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import bytes_text, count_text
from shoal.cli.interrupts import on_interrupt
from shoal.cli.unit_option import unit
from shoal.specfile.units import parse_duration
from shoal.suggestion import did_you_mean
from shoal.view import JobView, PipelineView

if TYPE_CHECKING:
    from shoal.local.recorder import Recorder

_PROGRESS_SECONDS = 2.0


@click.command()
@click.argument("pipeline", shell_complete=name_completion.open_pipelines)
@click.argument("port", metavar="JOB.PORT", shell_complete=name_completion.ports)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; it is there once it is complete, until then it is FILE.part.",
)
@click.option("--from-start", is_flag=True, help="Fail if record 0 is not kept any more.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N records.")
@click.option(
    "--duration",
    type=unit(parse_duration),
    metavar="DURATION",
    help="End after this time: 90s, 2m.",
)
@controller_options
async def record(
    target: Target,
    pipeline: str,
    port: str,
    output: Path,
    *,
    from_start: bool,
    count: int | None,
    duration: float | None,
) -> None:
    r"""Copy what an output port sends to a file, every record once, to the end of the stream.

    \b
        shoal record people-counter-4f2a camera.frames -o frames.records
        shoal run --replay camera.frames=frames.records pipeline.yaml
        shoal record latest camera.frames -o minute.records --duration 60s

    The copy begins with the first record that is still kept, and says which that is. While it
    records, the job keeps what was not copied yet; a file that is written more slowly than the
    stream passes slows the stream down. It follows the job to another node. Broken off, the same
    command goes on where it was, if that is still kept; else it fails, and FILE.part stays.

    Ctrl-C, --count and --duration complete the file with the records that it has by then; a second
    Ctrl-C breaks it off.
    """
    from shoal.cli.local_jobs import client_epoch
    from shoal.local.recorder import Recorder

    job, name = naming.port(port)
    async with target.client() as client:
        view = await chosen(client, pipeline)
        recorder = Recorder(
            client,
            view,
            _replica(view, job, name),
            name,
            output,
            count=count,
            epoch=client_epoch(),
            clock=asyncio.get_running_loop().time,
        )
        with contextlib.closing(recorder):
            await _record(recorder, duration, from_start=from_start)
            file = recorder.file
            click.echo(
                f"{output}: records {file.base} to {file.next - 1}, {bytes_text(file.size_bytes)}, "
                f"digest {file.digest}",
                err=True,
            )


async def _record(recorder: "Recorder", duration: float | None, *, from_start: bool) -> None:
    """Record until the stream ends, the time is over or the user presses Ctrl-C."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C does not wait
        recorder.stop()

    over = None if duration is None else loop.call_later(duration, recorder.stop)
    showing = asyncio.ensure_future(_show(recorder))
    try:
        with on_interrupt(interrupt):
            await recorder.run(from_start=from_start)
    finally:
        showing.cancel()
        if over is not None:
            over.cancel()


async def _show(recorder: "Recorder") -> None:
    """Say now and then where it began and how far it is."""
    file = recorder.file
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        if file.size_bytes:
            click.echo(
                f"from record {file.base} on: {count_text(file.next - file.base)} records, "
                f"{bytes_text(file.size_bytes)}",
                err=True,
            )


def _replica(view: PipelineView, job: str, port: str) -> JobView:
    """Find the one replica that is meant.

    Raises:
        ShoalError: there is none, or there are several.
        click.ClickException: it has no such output.
    """
    found = one_replica(view, job, port)
    outputs = [one.name for one in view.spec.job(found.spec_name).outputs]
    if port not in outputs:
        raise click.ClickException(
            f"the job {job!r} has no output {port!r}; {did_you_mean(port, outputs)}"
        )
    return found
