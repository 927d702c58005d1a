"""The pipeline and the jobs that a user means: an id, the beginning of one, or `latest`."""

import contextlib
from typing import TYPE_CHECKING

from shoal.cli import naming
from shoal.errors import ShoalError
from shoal.suggestion import LISTED_MAX, closest, did_you_mean
from shoal.view import JobView, PipelineView

if TYPE_CHECKING:
    from shoal.client import Client

LATEST = "latest"
"""Stands for the newest pipeline of the namespace; no id is called so, since each has a suffix."""

_PAGE = 1_000


async def chosen(client: "Client", name: str) -> PipelineView:
    """Find the pipeline that a user means.

    A whole id counts first. Anything else is `latest`, or the beginning of one id alone; for that
    all pipelines of the namespace are listed.

    Args:
        client: an open client, whose namespace is meant.
        name: `P` or `pipelines/P`, in which P is an id, the beginning of one, or `latest`.

    Raises:
        click.ClickException: it is no name.
        ShoalError: there is none, or several begin so.
    """
    wanted = naming.pipeline(name, client.namespace).pipeline
    if wanted == LATEST:
        return await client.get(await _newest(client))
    try:
        return await client.get(wanted)
    except ShoalError as error:
        if error.reason != "UNKNOWN_PIPELINE":
            raise
    return await client.get(await _begun_with(client, wanted))


def replicas_of(pipeline: PipelineView, job: str) -> tuple[JobView, ...]:
    """Return the job of that id, or all replicas of the job that the specification calls so.

    Raises:
        ShoalError: there is none.
    """
    found = [one for one in pipeline.jobs if job == one.id] or [
        one for one in pipeline.jobs if job == one.spec_name
    ]
    if not found:
        known = {name for one in pipeline.jobs for name in (one.id, one.spec_name)}
        raise ShoalError(
            "UNKNOWN_JOB",
            f"{pipeline.name} has no job {job!r}; {did_you_mean(job, known)}",
            code="NOT_FOUND",
        )
    return tuple(found)


def one_replica(pipeline: PipelineView, job: str, port: str = "") -> JobView:
    """Return the one job that is meant; `port` is named with it where there are several.

    Raises:
        ShoalError: there is none, or there are several replicas.
    """
    first, *others = found = replicas_of(pipeline, job)
    if others:
        names = ", ".join(
            f"{one.id}.{port}" if port else f"{pipeline.id}/{one.id}" for one in found
        )
        raise ShoalError(
            "SEVERAL_REPLICAS",
            f"the job {job!r} has {len(found)} replicas; name one of {names}",
            code="INVALID_ARGUMENT",
        )
    return first


async def _newest(client: "Client") -> str:
    async with contextlib.aclosing(client.summaries(page_size=1)) as pipelines:
        async for pipeline in pipelines:
            return pipeline.id
    raise ShoalError(
        "UNKNOWN_PIPELINE",
        f"namespace {client.namespace!r} has no pipelines yet, so none is the {LATEST}; "
        "try: shoal run -- echo hello",
        code="NOT_FOUND",
    )


async def _begun_with(client: "Client", start: str) -> str:
    ids = [pipeline.id async for pipeline in client.summaries(page_size=_PAGE)]
    found = [one for one in ids if one.startswith(start)]
    if len(found) == 1:
        return found[0]
    if found:
        more = ", …" if len(found) > LISTED_MAX else ""
        raise ShoalError(
            "SEVERAL_PIPELINES",
            f"{len(found)} pipelines begin with {start!r}: {', '.join(found[:LISTED_MAX])}{more}; "
            f"write more of the name, or `{LATEST}` for the newest of all",
            code="INVALID_ARGUMENT",
        )
    raise ShoalError(
        "UNKNOWN_PIPELINE",
        f"namespace {client.namespace!r} has no pipeline {start!r}, and none that begins so; "
        f"{_remedy(start, ids)}",
        code="NOT_FOUND",
    )


def _remedy(start: str, ids: list[str]) -> str:
    if not ids:
        return "there are none yet, try: shoal run -- echo hello"
    # Without the suffix that each id has, which is longer than what was typed of a short name.
    stems = {one.rpartition("-")[0]: one for one in reversed(ids)}
    if close := closest(start, ids) or stems.get(closest(start, stems)):
        return f"did you mean {close!r}?"
    return "`shoal status` lists what there is"
