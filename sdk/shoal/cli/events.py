"""`shoal events`: the facts that leave over MQTT."""

from collections import deque

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.errors import ShoalError
from shoal.view import Event


@click.command()
@click.argument("pipeline", required=False, default="", shell_complete=name_completion.pipelines)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="At most the last so many.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each event.")
@controller_options
async def events(target: Target, pipeline: str, *, limit: int, as_json: bool) -> None:
    r"""List events of pipelines, jobs and nodes, and say whether the broker has acknowledged them.

    \b
        shoal events
        shoal events people-counter-4f2a --json

    The oldest comes first. Without a broker events are kept, and published once there is one.
    """
    from shoal.cli.tables import events_table, show

    last: deque[Event] = deque(maxlen=limit)
    async with target.client() as client:
        unknown = None
        if pipeline:
            try:
                pipeline = (await chosen(client, pipeline)).id
            except ShoalError as error:  # its events may have outlived it
                unknown = error
        token = ""
        while True:
            page = await client.events(pipeline, page_token=token, page_size=1_000)
            last.extend(page.events)
            token = page.next_page_token
            if not token:
                break
    if unknown is not None and not last:
        raise unknown
    if as_json:
        for event in last:
            print_document(event)
        return
    if last:
        show(events_table(last))
    click.echo(f"broker: {page.publisher_state}", err=True)
