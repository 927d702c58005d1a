"""`shoal get`: download artifacts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.controller_option import Target, controller_options

if TYPE_CHECKING:
    from shoal.model import Artifact

_NAMED_MAX = 5


@click.command()
@click.argument("name", metavar="PIPELINE[/JOB]")
@click.argument("patterns", metavar="[PATTERN…]", nargs=-1)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to put them in.  [default: the pipeline's id]",
)
@click.option("--force", is_flag=True, help="Overwrite files that were changed here.")
@controller_options
async def get(
    target: Target, name: str, patterns: tuple[str, ...], output: Path | None, *, force: bool
) -> None:
    r"""Download artifacts, each checked against its SHA-256, to FOLDER/JOB/PATH.

    \b
        shoal get people-counter-4f2a
        shoal get latest/counter '*.csv' -o results

    A file that is there already and is the same is not fetched again. If one of them is another,
    nothing is fetched, unless with --force.
    """
    import asyncio

    from shoal.cli.chosen_pipeline import chosen, replicas_of
    from shoal.cli.figures import path_text
    from shoal.cli.naming import pipeline_or_job
    from shoal.names import JobRef
    from shoal.pattern import NamePattern

    ref = pipeline_or_job(name, target.namespace)
    # Of a path as a whole, so that `*.csv` finds one wherever it is.
    wanted = [NamePattern.parse(pattern) for pattern in patterns]
    async with target.client() as client:
        pipeline = await chosen(client, ref.pipeline)
        folder = output or Path(pipeline.id)
        jobs = replicas_of(pipeline, ref.job) if isinstance(ref, JobRef) else pipeline.jobs
        found = [
            (artifact, folder / job.id / artifact.path)
            for job in jobs
            for artifact in (job.manifest.artifacts if job.manifest else ())
            if not wanted or any(one.matches(artifact.path) for one in wanted)
        ]
        if not found:
            raise click.ClickException(
                f"{pipeline.name} has no artifacts {_called(patterns)}; "
                f"`shoal artifacts {pipeline.id}` lists what there is"
            )
        same = await asyncio.to_thread(_unchanged, found, force=force)
        for artifact, path in found:
            if path not in same:
                await client.fetch(artifact, path)
            click.echo(path_text(str(path)))


def _called(patterns: Sequence[str]) -> str:
    return f"called {' or '.join(patterns)}" if patterns else "yet"


def _unchanged(found: "Sequence[tuple[Artifact, Path]]", *, force: bool) -> set[Path]:
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
