"""`shoal revive`: run dead letters again."""

import contextlib
import fnmatch

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen, replicas_of
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.dead_letter import dead_jobs, letters
from shoal.view import PipelineView


@click.command()
@click.argument(
    "names", metavar="[PIPELINE[/JOB]]…", nargs=-1, shell_complete=name_completion.pipelines
)
@click.option("--all", "every", is_flag=True, help="All dead letters of the namespace.")
@click.option(
    "--name",
    "pattern",
    default="",
    metavar="PATTERN",
    help="With --all: those of such an id, as in 'scan-*'.",
)
@click.option(
    "--reason",
    default="",
    metavar="CODE",
    help="With --all: those that failed for it, as in OOM or 'EXIT 3'.",
)
@controller_options
async def revive(
    target: Target, names: tuple[str, ...], *, every: bool, pattern: str, reason: str
) -> None:
    r"""Run dead letters again: each as a new pipeline of the same specification and bundle.

    \b
        shoal revive count-4f2a
        shoal revive --all --reason FETCH
        shoal revive --all --name 'scan-*'

    The new pipeline has all jobs of the old one, and begins from the start. The old one stays as it ended, and
    is forgotten as others are. A letter is revived once: asked again, the command names the pipeline that it
    became. If one of the names is wrong, nothing is revived.
    """
    if every == bool(names):
        raise click.UsageError("give the names of dead letters, or --all")
    if names and (pattern or reason):
        raise click.UsageError("--name and --reason go with --all")
    async with target.client() as client:
        found: list[PipelineView] = []
        for name in names:
            pipeline, slash, job = name.removeprefix("pipelines/").partition("/")
            found.append(await chosen(client, pipeline))
            if slash:
                replicas_of(found[-1], job.removeprefix("jobs/"))
        if every:
            async with contextlib.aclosing(letters(client)) as all_letters:
                found = [one async for one in all_letters if _meant(one, pattern, reason)]
            if not found:
                click.echo("there is no such dead letter", err=True)
        for letter in found:
            revived = await client.revive(letter.id)
            before = " before" if revived.repeated else ""
            click.echo(f"{letter.name} was revived{before} as {revived.pipeline.name}")


def _meant(pipeline: PipelineView, pattern: str, reason: str) -> bool:
    reasons = {
        word for job in dead_jobs(pipeline) for word in (job.reason.short, str(job.reason.code))
    }
    return (not pattern or fnmatch.fnmatchcase(pipeline.id, pattern)) and (
        not reason or reason.upper() in reasons
    )
