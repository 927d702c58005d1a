"""`shoal tap`: look at the records of a stream while they pass."""

import asyncio
import contextlib
from typing import Any

import click

from shoal.cli import name_completion, naming
from shoal.cli.chosen_pipeline import chosen, replicas_of
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.tap_printer import RatePrinter, RecordPrinter
from shoal.record_text import codec_of
from shoal.view import TapWish


@click.command()
@click.argument("pipeline", shell_complete=name_completion.open_pipelines)
@click.argument("port", metavar="JOB.PORT", shell_complete=name_completion.ports)
@click.option("--count", "-n", type=click.IntRange(1), help="Leave after so many records.")
@click.option("--every", type=click.IntRange(1), default=1, help="Only each so many-th record.")
@click.option("--rate", is_flag=True, help="No records, but a line a second with rate and lag.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each record or rate.")
@click.option(
    "--codec",
    type=click.Choice(["auto", "raw", "json"]),
    help="What the records are.  [default: what the specification says of the port]",
)
@controller_options
async def tap(target: Target, pipeline: str, port: str, **wishes: Any) -> None:
    r"""Look at the records of an output port while they pass, until the stream ends.

    \b
        shoal tap people-counter-4f2a detector.found
        shoal tap people-counter-4f2a camera.frames --rate
        shoal tap people-counter-4f2a detector-1.found --every 100 --json

    Each line has the record's number, with replicas whose it is, its headers if there are any, and
    the record: text as text, values of shoal.job readably, else its size and first bytes. A tap
    shows what passes from now on, follows the job to another node, and never slows the stream: at
    most 1,000 records and 1 MiB a second are shown, and what is left out is counted.

    --rate tells records and bytes a second, and how many records each consumer is behind.
    """
    if wishes["rate"]:
        for option in ("count", "codec"):
            if wishes[option]:
                raise click.UsageError(
                    f"--rate shows no records, so --{option} {wishes[option]} has no meaning; "
                    "leave one of them out"
                )
    job, port_name = naming.port(port)
    async with target.client() as client:
        view = await chosen(client, pipeline)
        replicas = replicas_of(view, job)
        spec_name = replicas[0].spec_name
        codec = wishes["codec"] or codec_of(view.spec, spec_name, port_name)
        printer: RatePrinter | RecordPrinter
        if wishes["rate"]:
            printer = RatePrinter(asyncio.get_running_loop().time, as_json=wishes["as_json"])
        else:
            named = len(replicas) > 1
            printer = RecordPrinter(
                codec, named=named, as_json=wishes["as_json"], left=wishes["count"]
            )
        wish = TapWish(
            every=wishes["every"],
            # Nothing is shown of the records; one in a while keeps the samples coming.
            records_per_second=1.0 if wishes["rate"] else 0.0,
            record_bytes=1 if wishes["rate"] else 0,
        )
        try:
            news = client.tap(f"{view.name}/jobs/{job}", port_name, wish)
            async with contextlib.aclosing(news) as pieces:
                async for piece in pieces:
                    if printer.take(piece):
                        break
        finally:
            printer.close()
