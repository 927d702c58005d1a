"""`shoal get`: download artifacts."""

from pathlib import Path

import click

from shoal.cli.controller_option import Target, controller_options


@click.command()
@click.argument("name", metavar="PIPELINE[/JOB]")
@click.argument("patterns", metavar="[PATTERN…]", nargs=-1)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to put them in.  [default: the pipeline's id]",
)
@controller_options
async def get(target: Target, name: str, patterns: tuple[str, ...], output: Path | None) -> None:
    r"""Download artifacts, each checked against its SHA-256, to FOLDER/JOB/PATH.

    \b
        shoal get people-counter-4f2a
        shoal get people-counter-4f2a/counter '*.csv' -o results
    """
    from shoal.cli.figures import path_text
    from shoal.cli.naming import pipeline_or_job
    from shoal.names import JobRef
    from shoal.pattern import NamePattern

    ref = pipeline_or_job(name, target.namespace)
    # Of a path as a whole, so that `*.csv` finds one wherever it is.
    wanted = [NamePattern.parse(pattern) for pattern in patterns]
    count = 0
    async with target.client() as client:
        pipeline = await client.get(ref.pipeline)
        folder = output or Path(pipeline.id)
        for job in pipeline.jobs:
            if job.manifest is None:
                continue
            if isinstance(ref, JobRef) and ref.job not in {job.id, job.spec_name}:
                continue
            for artifact in job.manifest.artifacts:
                if wanted and not any(one.matches(artifact.path) for one in wanted):
                    continue
                path = folder / job.id / artifact.path
                await client.fetch(artifact, path)
                click.echo(path_text(str(path)))
                count += 1
    if not count:
        raise click.ClickException(
            f"{name} has no such artifacts; `shoal artifacts {name}` lists what there is"
        )
