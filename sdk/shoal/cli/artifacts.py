"""`shoal artifacts`: what jobs left in the archive."""

from contextlib import aclosing

import click

from shoal.cli import name_completion
from shoal.cli.attempt_files import files_of
from shoal.cli.chosen_pipeline import chosen, replicas_of
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import path_text
from shoal.cli.naming import pipeline_or_job
from shoal.model import JobState
from shoal.names import JobRef


@click.command()
@click.argument("name", metavar="PIPELINE[/JOB]", shell_complete=name_completion.pipelines_or_jobs)
@click.option("--urls", is_flag=True, help="Print an address for each, good for a while.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One line of JSON for each manifest, then for each attempt.",
)
@controller_options
async def artifacts(target: Target, name: str, *, urls: bool, as_json: bool) -> None:
    r"""List the artifacts of a pipeline or of one job, and where each attempt's files are.

    \b
        shoal artifacts people-counter-4f2a
        shoal artifacts --urls people-counter-4f2a/counter
        shoal get people-counter-4f2a       download them

    Of each artifact its path, bytes and SHA-256 are shown. What an attempt wrote that failed or was
    cancelled stays on its node for a while (`shoal agent --keep-failed`), and its path there is shown.
    With --json, a line for each attempt says the same.
    """
    from shoal.cli.tables import artifacts_table, show

    ref = pipeline_or_job(name, target.namespace)
    if urls and as_json:
        raise click.UsageError("--urls and --json exclude each other; leave one of them out")
    async with target.client() as client:
        pipeline = await chosen(client, ref.pipeline)
        jobs = replicas_of(pipeline, ref.job) if isinstance(ref, JobRef) else pipeline.jobs
        attempts = () if urls else await files_of(client, jobs)
        found = any(job.artifacts for job in jobs)
        if as_json:
            for job in jobs:
                print_document({"job": job.name, "manifest": job.manifest})
            for one in attempts:
                print_document(one)
        elif urls:
            names = [job.name for job in jobs] if isinstance(ref, JobRef) else [pipeline.name]
            for each in names if found else ():
                async with aclosing(client.artifacts(each, urls=True)) as listed:
                    async for artifact in listed:
                        path = path_text(artifact.artifact.path)
                        click.echo(f"{artifact.job}/{path} {artifact.url}")
        else:
            if found:
                show(artifacts_table(jobs))
            for one in attempts:
                if one.state is not JobState.SUCCEEDED:
                    click.echo(f"attempt {one.attempt} ({one.state.name}): {one.where}")
        if not found:
            what = f"{pipeline.name}/jobs/{ref.job}" if isinstance(ref, JobRef) else pipeline.name
            ended = all(job.state.terminal for job in jobs)
            click.echo(
                f"{what} {'left' if ended else 'has'} no artifacts{'' if ended else ' yet'}; "
                f"see: shoal status {pipeline.id}",
                err=True,
            )
