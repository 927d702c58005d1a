"""`shoal down`: end a cluster that `shoal up` started."""

import os
import signal
import time
from collections.abc import Sequence

import click

from shoal.cli import name_completion
from shoal.cli.cluster_record import ClusterRecord, running_cluster, running_clusters
from shoal.cli.controller_option import chosen_cluster

_END_SECONDS = 90.0
_LOOK_SECONDS = 0.05


@click.command()
@click.argument("names", metavar="[NAME…]", nargs=-1, shell_complete=name_completion.clusters)
@click.option("--all", "every", is_flag=True, help="All clusters of this user on this machine.")
@click.option(
    "--name",
    "--cluster",
    "named",
    multiple=True,
    metavar="NAME",
    help="The same as NAME; SHOAL_CLUSTER is not asked, since this ends it.",
)
def down(names: tuple[str, ...], named: tuple[str, ...], *, every: bool) -> None:
    r"""End a cluster of `shoal up`: its agents, their jobs, its controller and its broker.

    \b
        shoal down
        shoal down bench
        shoal down --all

    Returns once everything has ended. What was recorded and archived stays in the cluster's state
    folder, and the next `shoal up` of that name goes on from there. A name is needed where several
    clusters run. Without any cluster it says so, and the exit status is 0.
    """
    names += named
    if names and every:
        raise click.UsageError("name clusters, or give --all: not both")
    running = running_clusters()
    for record in _chosen(names, running, every=every):
        _end(record)
    if not running and not names:
        click.echo("no cluster of `shoal up` runs here")


def _chosen(
    names: Sequence[str], running: Sequence[ClusterRecord], *, every: bool
) -> Sequence[ClusterRecord]:
    if names:
        return [chosen_cluster(name, running) for name in dict.fromkeys(names)]
    if len(running) > 1 and not every:
        raise click.UsageError(
            f"{len(running)} clusters run here: {'; '.join(one.described for one in running)}. "
            "Name those that shall end, or give --all"
        )
    return running


def _end(record: ClusterRecord) -> None:
    """Ask it to end, and wait until it has.

    Raises:
        click.ClickException: it belongs to another user, or did not end in time.
    """
    asked = 0
    give_up_at = time.monotonic() + _END_SECONDS
    while (now := running_cluster(record.name)) is not None and now.pid in {0, asked or now.pid}:
        if now.pid and not asked:
            asked = now.pid
            try:
                os.kill(asked, signal.SIGTERM)
            except PermissionError:
                raise click.ClickException(
                    f"the cluster {record.described} was started by another user (process {asked}): "
                    "end it as that user"
                ) from None
            except ProcessLookupError:
                pass  # it has just ended
        if time.monotonic() >= give_up_at:
            raise click.ClickException(
                f"the cluster {record.described} did not end within {_END_SECONDS:g} s of SIGTERM; "
                f"end its process with: kill -9 {asked or now.pid}"
            )
        time.sleep(_LOOK_SECONDS)
    click.echo(f"the cluster {record.name} has ended; its files stay in {record.state}")
