"""`shoal finish`: let pipelines end with their results."""

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import state_word


@click.command()
@click.argument(
    "pipelines",
    metavar="PIPELINE…",
    nargs=-1,
    required=True,
    shell_complete=name_completion.open_pipelines,
)
@click.option("--wait", is_flag=True, help="Return once they have ended.")
@controller_options
async def finish(target: Target, pipelines: tuple[str, ...], *, wait: bool) -> None:
    r"""Let pipelines end with their results, also those that would never end by themselves.

    \b
        shoal finish people-counter-4f2a
        shoal finish --wait latest

    Jobs without stream inputs, the sources, are told to end: generators of shoal.job are closed where
    they yield, other programs get SIGTERM, and SIGKILL after their `grace`. What they have sent until
    then goes through the pipeline to its end, results are archived, and the pipeline succeeds.

    If one of the names is wrong, nothing is finished. Asking twice changes nothing. `shoal cancel`
    still ends it at once, without results. With --wait the exit status is 1 if one of them did not
    succeed after all.
    """
    from shoal.cli.outcome import exit_status

    status = 0
    async with target.client() as client:
        found = [await chosen(client, name) for name in pipelines]
        for before in found:
            if before.state.terminal:
                click.echo(
                    f"{before.name} {state_word(before.state)} before, so nothing is finished"
                )
                if wait:
                    status = max(status, exit_status(before))
                continue
            pipeline = await client.finish(before.id)
            if wait and not pipeline.state.terminal:
                # As long as it takes: what was sent has to be processed.
                pipeline = await client.wait(pipeline.id)
            word = state_word(pipeline.state) if pipeline.state.terminal else "is finishing"
            click.echo(f"{pipeline.name} {word}")
            if wait:
                status = max(status, exit_status(pipeline))
    raise click.exceptions.Exit(status)
