"""`shoal archive`: what an operator does with the archive as a whole."""

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import bytes_text, counted, path_text
from shoal.cli.suggesting_group import SuggestingGroup


@click.group(cls=SuggestingGroup)
def archive() -> None:
    r"""Look after the archive.

    \b
        shoal archive gc --dry-run          what nothing names any more, and how much that is
        shoal archive gc                    remove it now; the controller does so once a day
    """


@archive.command()
@click.option("--dry-run", is_flag=True, help="Remove nothing, and say what would go.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@controller_options
async def gc(target: Target, *, dry_run: bool, as_json: bool) -> None:
    """Remove what no committed manifest, no pipeline that runs and no dead letter names.

    That are files of attempts that did not succeed, bundles that no remembered pipeline needs, and uploads
    that were never completed, each after its time: --keep-attempts-days and --keep-bundles-days of the
    controller. Committed results go only where it was started with --keep-results.
    """
    async with target.client() as client:
        report = await client.collect_garbage(dry_run=dry_run)
    if as_json:
        print_document(report)
        return
    for key in report.keys:
        click.echo(path_text(key))
    if report.objects > len(report.keys):
        click.echo(f"… and {report.objects - len(report.keys)} more")
    what = f"{counted(report.objects, 'object')} with {bytes_text(report.size_bytes)}"
    uploads = f"{counted(report.uploads, 'unfinished upload')}"
    verb = "would be removed" if dry_run else "are removed"
    click.echo(f"{what} and {uploads} {verb}")
