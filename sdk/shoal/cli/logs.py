"""`shoal logs`: what jobs print."""

import contextlib

import click

from shoal.cli.controller_option import Target, controller_options, run_async


@click.command()
@click.argument("name", metavar="PIPELINE[/JOB]")
@click.option("--follow", "-f", is_flag=True, help="Go on until the pipeline has ended.")
@click.option(
    "--tail", type=click.IntRange(0), default=0, help="Only the last so many bytes of each log."
)
@controller_options
def logs(target: Target, name: str, *, follow: bool, tail: int) -> None:
    r"""Show what the jobs of a pipeline print, also after they or their nodes are gone.

    \b
        shoal logs people-counter-4f2a
        shoal logs -f people-counter-4f2a/detector-1
        shoal logs people-counter-4f2a/detector         all of its replicas

    A job's stdout goes to stdout, its stderr to stderr. If there are several jobs, each line begins
    with the job it came from, and with #2 from its second attempt on.
    """
    run_async(_logs(target, name, follow, tail))


async def _logs(target: Target, name: str, follow: bool, tail: int) -> None:  # noqa: FBT001
    from shoal.cli.log_printer import standard_printer
    from shoal.cli.naming import pipeline_or_job
    from shoal.names import JobRef

    ref = pipeline_or_job(name, target.namespace)
    async with target.client() as client:
        jobs = (await client.get(ref.pipeline)).jobs
        if isinstance(ref, JobRef):  # a job, or all replicas of one of the spec
            jobs = tuple(job for job in jobs if ref.job in {job.id, job.spec_name})
        printer = standard_printer(prefixed=len(jobs) > 1)
        stream = client.logs(ref.name, follow=follow, tail_bytes=tail)
        try:
            async with contextlib.aclosing(stream) as chunks:
                async for chunk in chunks:
                    printer.write(chunk)
        finally:
            printer.close()
