"""`shoal artifacts`: what jobs left in the archive."""

import click

from shoal.cli.controller_option import Target, controller_options


@click.command()
@click.argument("name", metavar="PIPELINE[/JOB]")
@click.option("--urls", is_flag=True, help="Print an address for each, good for a while.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each manifest.")
@controller_options
async def artifacts(target: Target, name: str, *, urls: bool, as_json: bool) -> None:
    r"""List the artifacts of a pipeline or of one job: path, bytes and SHA-256.

    \b
        shoal artifacts people-counter-4f2a
        shoal artifacts --urls people-counter-4f2a/counter
        shoal get people-counter-4f2a       download them
    """
    from shoal.cli.document import print_document
    from shoal.cli.figures import path_text
    from shoal.cli.naming import pipeline_or_job
    from shoal.cli.tables import artifacts_table, show
    from shoal.names import JobRef

    ref = pipeline_or_job(name, target.namespace)
    async with target.client() as client:
        pipeline = await client.get(ref.pipeline)
        jobs = [job for job in pipeline.jobs if not isinstance(ref, JobRef) or job.name == ref.name]
        if not jobs:
            raise click.ClickException(
                f"the pipeline {ref.pipeline} has no job {name.rsplit('/', 1)[-1]!r}; "
                f"it has {', '.join(job.id for job in pipeline.jobs)}"
            )
        if as_json:
            for job in jobs:
                print_document({"job": job.name, "manifest": job.manifest})
        elif urls:
            for job in jobs:
                for artifact in job.manifest.artifacts if job.manifest else ():
                    click.echo(
                        f"{job.id}/{path_text(artifact.path)} {await client.artifact_url(artifact)}"
                    )
        elif any(job.manifest for job in jobs):
            show(artifacts_table(jobs))
        else:
            click.echo(f"{ref.name} has no artifacts yet; see: shoal status", err=True)
