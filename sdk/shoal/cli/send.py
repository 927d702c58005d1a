"""`shoal send`: records by hand, into a local job without a program."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from shoal.cli import name_completion, naming
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import counted
from shoal.cli.state_home import state_home
from shoal.errors import ShoalError
from shoal.model import JobState
from shoal.portal_names import input_lane
from shoal.spec import Output, PortFormat
from shoal.view import PipelineView

if TYPE_CHECKING:
    from shoal.client import Client
    from shoal.local.lane import Feeder
    from shoal.local.record_file import RecordFile


@click.command()
@click.argument("pipeline", shell_complete=name_completion.open_pipelines)
@click.argument("port", metavar="JOB.PORT", shell_complete=name_completion.ports)
@click.argument("records", nargs=-1)
@click.option(
    "--format",
    "form",
    type=click.Choice(["lines", "jsonl", "bytes"]),
    help="What a record of stdin is: a line, a line of JSON, or all of it.  "
    "[default: jsonl if the port is, else lines]",
)
@click.option("--keep-open", is_flag=True, help="Leave the stream open, so that more may be sent.")
@controller_options
async def send(
    target: Target,
    pipeline: str,
    port: str,
    records: tuple[str, ...],
    form: str | None,
    *,
    keep_open: bool,
) -> None:
    r"""Send records into a job that the specification declares with `local: true` and without `run`.

    \b
        shoal send chat-4f2a me.said                    what you type, a record a line, until Ctrl-D
        shoal send chat-4f2a me.said 'hello' 'world'
        seq 100 | shoal send --keep-open numbers-17ab source.numbers

    A job that reads the port with shoal.job gets a str for a line, a value for JSON, and bytes for
    bytes; a port with a raw format carries the text itself. The end of the input ends the stream.

    The command stays until nothing of what it sent can be asked for again; what it sent lies in
    this user's state folder until then. If it is killed, or its machine, the same command goes on
    after the last record; records that had not reached the pipeline are sent first.
    """
    from shoal.cli.local_jobs import client_epoch
    from shoal.local.lane import Feeder, LaneName
    from shoal.local.local_job import spool_folder
    from shoal.local.record_file import RecordFile

    job, name = naming.port(port)
    async with target.client() as client:
        view = await chosen(client, pipeline)
        output = _output(view, job, name)
        folder = spool_folder(state_home(), view.namespace, view.id)
        path = folder / f"{job}.{name}.records"
        file = RecordFile(path, {"pipeline": view.id, "job": job, "port": name})
        with contextlib.closing(file):
            if file.total is not None:
                raise click.ClickException(
                    f"{job}.{name} was ended after {counted(file.total, 'record')}; nothing more can be sent"
                )
            lane = LaneName(view.namespace, view.id, input_lane(job, name), client_epoch())
            feeder = Feeder(client, lane, file, adopt=True)
            ended = await _feed(
                client, view, job, file, feeder, _values(records, form, output), keep_open=keep_open
            )
        if ended is not None:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()


async def _feed(
    client: "Client",
    view: PipelineView,
    job: str,
    file: "RecordFile",
    feeder: "Feeder",
    values: AsyncIterator[bytes],
    *,
    keep_open: bool,
) -> PipelineView | None:
    from shoal.local.checked_block import pack

    async def fill() -> None:
        await feeder.begun.wait()
        async for record in values:
            await feeder.room()
            for packed in pack(file.next, [record]):
                file.append(packed)
                feeder.grown(len(packed.body))
        if not keep_open:
            file.end()
            feeder.grown()

    async def safe() -> None:
        """Return once every record has reached the pipeline, for a stream that stays open."""
        await filling
        while feeder.consumed < file.next:
            feeder.changed.clear()
            await feeder.changed.wait()

    feeding = asyncio.ensure_future(feeder.run())
    filling = asyncio.ensure_future(fill())
    waiting = asyncio.ensure_future(safe() if keep_open else _until_over(file, filling))
    watching = asyncio.ensure_future(_watch(client, view, job))
    try:
        done, _ = await asyncio.wait(
            {feeding, waiting, watching}, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()
        ended = watching.result() if watching in done else None
        if ended is not None and not _taken(ended, job):
            raise ShoalError(
                "ENDED", f"{view.id} {ended.state.name.lower()}: {ended.reason.message or job}"
            )
        click.echo(f"{counted(file.next, 'record')} taken", err=True)
        return ended
    finally:
        tasks = (filling, waiting, watching, feeding)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_over(file: "RecordFile", filling: "asyncio.Task[None]") -> None:
    """Fail as the filling fails; the watch of the pipeline says when it is over."""
    await filling
    click.echo(
        f"{counted(file.next, 'record')}; waiting until nobody can ask for them again", err=True
    )
    await asyncio.get_running_loop().create_future()


async def _watch(client: "Client", view: PipelineView, job: str) -> PipelineView:
    """Return how the pipeline stands once the job that is fed has ended."""
    over = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    return await client.when(
        view.id,
        lambda pipeline: (
            pipeline.state.terminal
            or any(one.id == job and one.state in over for one in pipeline.jobs)
        ),
    )


def _taken(view: PipelineView, job: str) -> bool:
    return any(one.id == job and one.state is JobState.SUCCEEDED for one in view.jobs)


def _output(view: PipelineView, job: str, port: str) -> Output:
    """Find the port in the specification.

    Raises:
        click.ClickException: it is none that can be fed by hand.
    """
    jobs = {one.name: one for one in view.spec.jobs}
    by_hand = [f"{one.name}.{one.outputs[0].name}" for one in jobs.values() if _fed(one)]
    there = f"what can be fed there: {', '.join(by_hand) or 'nothing'}"
    if job not in jobs:
        raise click.ClickException(f"{view.name} has no job {job!r}; {there}")
    if not _fed(jobs[job]):
        raise click.ClickException(
            f"the job {job!r} of {view.name} is not fed by hand: it would have `local: true` and no "
            f"`run`; {there}"
        )
    for output in jobs[job].outputs:
        if output.name == port:
            return output
    raise click.ClickException(f"the job {job!r} of {view.name} has no output {port!r}; {there}")


def _fed(job: Any) -> bool:
    return bool(job.local and not job.run and job.outputs)


async def _values(records: Sequence[str], form: str | None, output: Output) -> AsyncIterator[bytes]:
    """Yield records as they travel."""
    port_format = output.binding.format
    form = form or ("jsonl" if port_format is PortFormat.JSONL else "lines")
    encode = _encoder(form, blocks=port_format is PortFormat.BLOCKS)
    if records:
        for record in records:
            yield encode(record.encode())
        return
    if form == "bytes":
        yield encode(await asyncio.to_thread(sys.stdin.buffer.read))
        return
    prompt = "> " if sys.stdin.isatty() else ""
    while line := await asyncio.to_thread(_line, prompt):
        yield encode(line.removesuffix(b"\n"))


def _line(prompt: str) -> bytes:
    if prompt:
        click.echo(prompt, nl=False, err=True)
    return sys.stdin.buffer.readline()


def _encoder(form: str, *, blocks: bool) -> Callable[[bytes], bytes]:
    """Return what makes a record of a line.

    With blocks the reader uses shoal.job and its codec `auto`; any other format is plain bytes.
    """
    from shoal.job.codec import AUTO

    def value(data: bytes) -> Any:
        if form == "lines":
            return data.decode("utf-8", "surrogateescape")
        if form == "bytes":
            return data
        try:
            return json.loads(data)
        except ValueError as error:
            raise click.ClickException(f"{data[:60]!r} is no JSON: {error}") from None

    def encode(data: bytes) -> bytes:
        found = value(data)
        return b"".join(map(bytes, AUTO.encode(found))) if blocks else data

    return encode
