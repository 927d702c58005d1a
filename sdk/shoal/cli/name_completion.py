"""Names that a shell completes: of pipelines, their jobs and ports, of nodes and of clusters.

A person waits with a finger on the key, and anything printed would land in the line that is being
typed. So the controller has a second, and whatever goes wrong, nothing is completed and nothing said.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import TYPE_CHECKING, cast

import click
from click.shell_completion import CompletionItem

from shoal.cli.chosen_pipeline import chosen
from shoal.cli.cluster_record import running_clusters

if TYPE_CHECKING:
    from shoal.client import Client

PATIENCE_SECONDS = 1.0
"""How long the controller has."""

_LISTED_MAX = 200
_READ_MAX = 1_000

Find = Callable[["Client", click.Context, str], Awaitable[list[str]]]
"""Returns the names that begin so; the context has what was given before."""
Complete = Callable[[click.Context, click.Parameter, str], list[str]]
"""What click calls."""


def _asking(find: Find) -> Complete:
    """Ask the controller that is meant; nothing comes where it does not answer.

    What is given already is left out.
    """

    @functools.wraps(find)
    def complete(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
        async def ask() -> list[str]:
            from shoal.cli.controller_option import chosen_target

            options = ("controller", "cluster", "namespace", "identity")
            target = chosen_target(*map(context.params.get, options))
            async with (
                asyncio.timeout(PATIENCE_SECONDS),
                target.client(deadline_seconds=PATIENCE_SECONDS) as client,
            ):
                return await find(client, context, start)

        with contextlib.suppress(Exception), context.scope(cleanup=False):
            return _without_given(context, asyncio.run(ask()))
        return []

    return complete


@_asking
async def pipelines(client: "Client", _context: click.Context, start: str) -> list[str]:
    """Name the newest pipelines that begin so."""
    return await _pipelines(client, start)


@_asking
async def open_pipelines(client: "Client", _context: click.Context, start: str) -> list[str]:
    """Name the newest pipelines that begin so and have not ended."""
    return await _pipelines(client, start, ended=False)


@_asking
async def pipelines_or_jobs(client: "Client", _context: click.Context, start: str) -> list[str]:
    """Name pipelines, and behind a slash the jobs of the one before it."""
    name, slash, job = start.partition("/")
    if not slash:
        return await _pipelines(client, start)
    found = await chosen(client, name)
    known = dict.fromkeys(one for job in found.jobs for one in (job.spec_name, job.id))
    return [f"{name}/{one}" for one in known if one.startswith(job)]


@_asking
async def ports(client: "Client", context: click.Context, start: str) -> list[str]:
    """Name the output ports of the pipeline that stands before."""
    found = await chosen(client, str(context.params.get("pipeline") or ""))
    return [
        f"{job.id}.{port.name}"
        for job in found.jobs
        for port in found.spec.job(job.spec_name).outputs
        if f"{job.id}.{port.name}".startswith(start)
    ]


@_asking
async def nodes(client: "Client", _context: click.Context, start: str) -> list[str]:
    """Name the nodes that begin so."""
    return [node.name for node in await client.nodes() if node.name.startswith(start)]


@_asking
async def secrets(client: "Client", _context: click.Context, start: str) -> list[str]:
    """Name the secrets of the namespace that begin so."""
    return [one.name for one in await client.secrets() if one.name.startswith(start)]


@_asking
async def stored(client: "Client", _context: click.Context, start: str) -> list[str]:
    """Name the stored pipelines of the namespace that begin so."""
    found: list[str] = []
    async with contextlib.aclosing(client.list_stored(page_size=_LISTED_MAX)) as listed:
        async for one in listed:
            if one.name.startswith(start):
                found.append(one.name)
            if len(found) == _LISTED_MAX:
                break
    return found


def clusters(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Name the clusters of `shoal up` that run on this machine and begin so."""
    with contextlib.suppress(Exception):
        found = [record.name for record in running_clusters()]
        return _without_given(context, [name for name in found if name.startswith(start)])
    return []


def specs_or_pipelines(
    context: click.Context, parameter: click.Parameter, start: str
) -> list[CompletionItem]:
    """Name pipelines, and have the shell name files."""
    found = [CompletionItem(name) for name in pipelines(context, parameter, start)]
    return [*found, CompletionItem(start, type="file")]


async def _pipelines(client: "Client", start: str, *, ended: bool = True) -> list[str]:
    found: list[str] = []
    read = 0
    async with contextlib.aclosing(client.summaries(page_size=_LISTED_MAX)) as listed:
        async for pipeline in listed:
            if pipeline.id.startswith(start) and (ended or not pipeline.state.terminal):
                found.append(pipeline.id)
            read += 1
            if len(found) == _LISTED_MAX or read == _READ_MAX:
                break
    return [*found, "latest"] if read and "latest".startswith(start) else found


def _without_given(context: click.Context, found: list[str]) -> list[str]:
    values = (cast("object", one) for one in context.params.values())
    several = [cast("tuple[object, ...]", one) for one in values if isinstance(one, tuple)]
    given = set(chain.from_iterable(several))
    return [one for one in found if one not in given]
