"""Where the files of each attempt are: in the archive, on its node for a while, or gone."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from shoal.cli.figures import path_text
from shoal.errors import ShoalError
from shoal.kept_folder import KeptFolder
from shoal.model import JobState
from shoal.view import AttemptView, JobView, Manifest, NodeView

if TYPE_CHECKING:
    from shoal.client import Client

_ASIDE: Final = timedelta(seconds=15)
"""How long it may take after an end until a folder is where it is kept, and its node has said so."""


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """Where the files of an attempt that has ended are.

    `files` is a word for programs: `archived`, `kept`, `moving`, `unknown`, `gone` or `none`; `where` is
    a phrase for people, and `path` and `until_time` are those of a folder that is kept.
    """

    attempt: str
    number: int
    state: JobState
    node: str
    files: str
    where: str
    path: str = ""
    until_time: datetime | None = None


async def files_of(client: "Client", jobs: Iterable[JobView]) -> tuple[AttemptFiles, ...]:
    """Say of each attempt that has ended where its files are; nodes are asked for what they keep.

    Raises:
        ShoalError: the controller did not answer.
    """
    asked = [(job, one) for job in jobs for one in job.attempts if one.state.terminal]
    names = {one.node for _, one in asked if one.state is not JobState.SUCCEEDED}
    nodes = await asyncio.gather(*(_node(client, name) for name in sorted(names)))
    known = {node.name: node for node in nodes if node is not None}
    now = datetime.now(UTC)
    return tuple(_files(client.namespace, job, one, known, now) for job, one in asked)


def manifest_of(job: JobView, attempt: AttemptView) -> Manifest | None:
    """What an attempt has in the archive; None if that is nothing."""
    if job.manifest is not None and job.manifest.attempt == attempt.name:
        return job.manifest
    return attempt.manifest


async def _node(client: "Client", name: str) -> NodeView | None:
    try:
        return await client.node(name)
    except ShoalError as error:
        if error.code != "NOT_FOUND":
            raise
        return None


def _files(
    namespace: str,
    job: JobView,
    attempt: AttemptView,
    nodes: Mapping[str, NodeView],
    now: datetime,
) -> AttemptFiles:
    node = nodes.get(attempt.node)
    kept = None if node is None else _kept(node, namespace, attempt)
    path, until = "", None
    manifest = manifest_of(job, attempt)
    if kept is not None and node is not None:
        path, until = path_text(kept.path), kept.until_time
        away = "" if node.connected else " (which is away)"
        at_most = f" until {until:%Y-%m-%d %H:%M} UTC at the latest" if until else ""
        partly = "partly in the archive; all is " if manifest else ""
        files, where = "kept", f"{partly}kept on node {attempt.node}{away}{at_most}: {path}"
    elif manifest is not None:
        earlier = manifest is attempt.manifest
        option = f" --attempt {attempt.number}" if earlier else ""
        pipeline = job.name.split("/")[1]
        files = "archived"
        where = f"in the archive: shoal get {pipeline}/{job.id}{option}"
    elif attempt.start_time is None:
        files, where = "none", "its program did not begin"
    elif node is None:
        files, where = "unknown", f"node {attempt.node} is not known any more"
    elif not node.connected:
        files, where = (
            "unknown",
            f"node {attempt.node} is away; what it keeps is shown once it is back",
        )
    elif attempt.end_time is not None and now - attempt.end_time < _ASIDE:
        files, where = "moving", f"node {attempt.node} puts them aside; ask again in a moment"
    else:
        files, where = "gone", f"not kept on node {attempt.node} any longer"
    return AttemptFiles(
        f"{job.id}/{attempt.number}",
        attempt.number,
        attempt.state,
        attempt.node,
        files,
        where,
        path,
        until,
    )


def _kept(node: NodeView, namespace: str, attempt: AttemptView) -> KeptFolder | None:
    wanted = (namespace, attempt.name, attempt.epoch)
    for one in node.kept:
        if (one.ref.namespace, one.ref.name, one.ref.epoch) == wanted:
            return one
    return None
