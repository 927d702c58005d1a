"""`shoal get`: download artifacts."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.attempt_files import files_of, manifest_of
from shoal.cli.chosen_pipeline import chosen, one_replica, replicas_of
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import path_text
from shoal.cli.naming import pipeline_or_job
from shoal.model import Artifact
from shoal.names import JobRef
from shoal.pattern import NamePattern
from shoal.view import PipelineView

if TYPE_CHECKING:
    from shoal.client import Client

_NAMED_MAX = 5


@click.command()
@click.argument("name", metavar="PIPELINE[/JOB]", shell_complete=name_completion.pipelines_or_jobs)
@click.argument("patterns", metavar="[PATTERN…]", nargs=-1)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to put them in.  [default: the pipeline's id]",
)
@click.option(
    "--attempt",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of an earlier attempt of one job, to FOLDER/JOB/attempts/N/PATH.",
)
@click.option("--force", is_flag=True, help="Overwrite files that were changed here.")
@controller_options
async def get(
    target: Target,
    name: str,
    patterns: tuple[str, ...],
    output: Path | None,
    *,
    attempt: int | None,
    force: bool,
) -> None:
    r"""Download artifacts, each checked against its SHA-256, to FOLDER/JOB/PATH.

    \b
        shoal get people-counter-4f2a
        shoal get latest/counter '*.csv' -o results
        shoal get latest/counter --attempt 1        what an attempt wrote that failed

    What failed or was cancelled is archived where the job has `archive_on: failure` or `always`;
    `shoal artifacts` says where the rest is.
    A file that is there already and is the same is not fetched again. If one of them is another,
    nothing is fetched, unless with --force.
    """
    ref = pipeline_or_job(name, target.namespace)
    # Of a path as a whole, so that `*.csv` finds one wherever it is.
    wanted = [NamePattern.parse(pattern) for pattern in patterns]
    async with target.client() as client:
        pipeline = await chosen(client, ref.pipeline)
        folder = output or Path(pipeline.id)
        jobs = replicas_of(pipeline, ref.job) if isinstance(ref, JobRef) else pipeline.jobs
        if attempt is not None:
            if not isinstance(ref, JobRef):
                raise click.UsageError("--attempt is of one job: name it as PIPELINE/JOB")
            places = [await _of_attempt(client, pipeline, ref.job, attempt)]
        else:
            places = [(job.artifacts, Path(job.id)) for job in jobs]
        found = [
            (artifact, folder / place / artifact.path)
            for artifacts, place in places
            for artifact in artifacts
            if not wanted or any(one.matches(artifact.path) for one in wanted)
        ]
        if not found:
            called = f"called {' or '.join(patterns)}" if patterns else "yet"
            raise click.ClickException(
                f"{pipeline.name} has no artifacts {called}; "
                f"`shoal artifacts {pipeline.id}` lists what there is"
            )
        same = await asyncio.to_thread(_unchanged, found, force=force)
        for artifact, path in found:
            if path not in same:
                await client.fetch(artifact, path)
            click.echo(path_text(str(path)))


async def _of_attempt(
    client: "Client", pipeline: PipelineView, name: str, number: int
) -> tuple[tuple[Artifact, ...], Path]:
    """Find what an attempt of a job has in the archive, and where to put it.

    Raises:
        click.ClickException: there is no such attempt, or it has nothing there.
        ShoalError: there is no such job, or it has several replicas.
    """
    job = one_replica(pipeline, name)
    found = next((one for one in job.attempts if one.number == number), None)
    if found is None:
        known = ", ".join(str(one.number) for one in job.attempts) or "none yet"
        raise click.ClickException(f"{job.name} has no attempt {number}; its attempts are {known}")
    manifest = manifest_of(job, found)
    if manifest is None:
        where = [one.where for one in await files_of(client, [job]) if one.number == number]
        raise click.ClickException(
            f"attempt {number} of {job.name} has nothing in the archive: "
            f"{where[0] if where else 'it has not ended'}; with `archive_on: always` the job's next "
            "attempts have"
        )
    return manifest.artifacts, Path(job.id, "attempts", str(number))


def _unchanged(found: Sequence[tuple[Artifact, Path]], *, force: bool) -> set[Path]:
    """Return the paths that hold their artifact already; blocks.

    Raises:
        click.ClickException: others hold something else, or cannot hold a file.
    """
    same: set[Path] = set()
    changed: list[Path] = []
    for artifact, path in found:
        if path.is_dir():
            raise click.ClickException(
                f"{path} is a folder, and an artifact is to lie there; choose another one with -o"
            )
        if not path.exists():
            continue
        if _sha256(path) == artifact.sha256:
            same.add(path)
        else:
            changed.append(path)
    if changed and not force:
        named = ", ".join(str(path) for path in changed[:_NAMED_MAX])
        more = f" and {len(changed) - _NAMED_MAX} more" if len(changed) > _NAMED_MAX else ""
        raise click.ClickException(
            f"{named}{more}: other content than the artifact has lies there, so nothing was "
            "fetched; choose another folder with -o, or overwrite with --force"
        )
    return same


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be read: {error.strerror}; move it away, or choose another folder with -o"
        ) from None
