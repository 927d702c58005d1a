"""`shoal cancel`: end pipelines early."""

import click

from shoal.cli.controller_option import Target, controller_options


@click.command()
@click.argument("pipelines", metavar="PIPELINE…", nargs=-1, required=True)
@click.option("--reason", default="", help="Why; shown to whoever looks at the pipeline.")
@click.option("--wait", is_flag=True, help="Return once they have ended.")
@controller_options
async def cancel(target: Target, pipelines: tuple[str, ...], *, reason: str, wait: bool) -> None:
    r"""End pipelines early: SIGTERM to their programs, SIGKILL after their grace.

    \b
        shoal cancel people-counter-4f2a
        shoal cancel --reason 'wrong video' --wait people-counter-4f2a
    """
    from shoal.cli.figures import state_word

    async with target.client() as client:
        for name in pipelines:
            pipeline = await client.cancel(name, reason)
            if wait and not pipeline.state.terminal:
                pipeline = await client.wait(pipeline.id, deadline_seconds=600)
            word = state_word(pipeline.state) if pipeline.state.terminal else "is being cancelled"
            click.echo(f"{pipeline.name} {word}")
