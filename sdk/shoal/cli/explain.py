"""`shoal explain`: why a job is where it is, or waits."""

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen, one_replica
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.naming import job
from shoal.recovery_explanation import recovery_explanation


@click.command()
@click.argument("name", metavar="PIPELINE/JOB", shell_complete=name_completion.pipelines_or_jobs)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each node.")
@controller_options
async def explain(target: Target, name: str, *, as_json: bool) -> None:
    r"""Say for each node, in one sentence, why a job can or cannot be placed there.

    Then, how the job's records travel, and what a replacement of it would do.

    \b
        shoal explain people-counter-4f2a/camera
    """
    from shoal.cli.tables import show, verdicts_table

    ref = job(name, target.namespace)
    async with target.client() as client:
        pipeline = await chosen(client, ref.pipeline)
        job_view = one_replica(pipeline, ref.job)
        verdicts = await client.explain(job_view.name)
    if as_json:
        for verdict in verdicts:
            print_document(verdict)
    elif verdicts:
        show(verdicts_table(verdicts))
    else:
        click.echo("no agent has connected yet; start one with: shoal agent", err=True)
    if not as_json:
        if job_view.waiting_for:
            click.echo(f"{job_view.id} waits: {job_view.waiting_for}.")
        spec_job = pipeline.spec.job(job_view.spec_name)
        for sentence in recovery_explanation(pipeline.spec, spec_job):
            click.echo(sentence)
