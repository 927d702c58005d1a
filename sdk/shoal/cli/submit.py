"""`shoal submit`: record pipelines, and return."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document, to_document
from shoal.cli.figures import counted
from shoal.cli.traceparent import given_traceparent
from shoal.cli.values_option import values_options
from shoal.errors import ShoalError
from shoal.specfile.values import GivenValue

if TYPE_CHECKING:
    from shoal.client import Client, Submitted
    from shoal.specfile.load import SpecFile


@click.command()
@click.argument("paths", metavar="SPEC…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Submit again what was submitted before.")
@click.option("--request-id", default="", help="Idempotency key of a single specification.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps what was sent, as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each pipeline.")
@values_options
@controller_options
async def submit(
    target: Target,
    paths: tuple[Path, ...],
    *,
    force: bool,
    request_id: str,
    save: Path | None,
    as_json: bool,
    given: dict[str, GivenValue],
) -> None:
    r"""Submit pipelines, and return once they are recorded.

    \b
        shoal submit pipeline.yaml
        shoal submit tasks/                 every *.yaml and *.yml in the folder
        shoal submit --set limit=20 pipeline.yaml

    What is the same, specification, values and bundle, is submitted once however often the command is
    repeated; --force submits it again. All specifications are checked before the first is sent.
    Prints the name of each pipeline, for `shoal status` and `shoal logs`.
    """
    from shoal.cli.packing import load_all

    named = _expand(paths)
    if request_id and force:
        raise click.UsageError(
            "--force makes a new submission, and --request-id names one; leave one of them out"
        )
    if request_id and len(named) != 1:
        raise click.UsageError("--request-id goes with one specification; leave it out for several")
    files = await asyncio.to_thread(load_all, named, given)
    errors = 0
    async with target.client() as client:
        limit = asyncio.Semaphore(4)

        async def one(spec_file: "SpecFile") -> "Submitted | ShoalError":
            async with limit:
                try:
                    return await _one(client, spec_file, force=force, request_id=request_id)
                except ShoalError as error:
                    return error

        for spec_file, answer in zip(
            files, await asyncio.gather(*(one(spec_file) for spec_file in files)), strict=True
        ):
            if isinstance(answer, ShoalError):
                errors += 1
                click.echo(f"{spec_file.path}: {answer.message}", err=True)
                continue
            if save is not None:
                try:
                    await asyncio.to_thread(_save, save, answer)
                except OSError as error:
                    raise click.ClickException(
                        f"{answer.pipeline.name} was submitted, and cannot be saved: "
                        f"{error.filename}: {error.strerror}; choose another folder with --save"
                    ) from error
            if as_json:
                print_document(answer)
            else:
                click.echo(answer.pipeline.name)
            if answer.repeated:
                click.echo(
                    f"{spec_file.path}: was submitted before and is the same; "
                    "--force submits it again",
                    err=True,
                )
    if errors:
        raise click.ClickException(f"{errors} of {counted(len(files), 'specification')} refused")


def _expand(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(item for item in path.iterdir() if item.suffix in {".yaml", ".yml"})
            if not inside:
                raise click.UsageError(f"the folder {path} holds no *.yaml; name another one")
            found.extend(inside)
        else:
            found.append(path)
    return found


async def _one(
    client: "Client", spec_file: "SpecFile", *, force: bool, request_id: str
) -> "Submitted":
    from shoal.cli.local_jobs import refuse_local
    from shoal.cli.packing import packed_file
    from shoal.client import request_key
    from shoal.wire.spec import encode_pipeline_spec

    refuse_local(spec_file.pipeline)
    with contextlib.ExitStack() as stack:
        prepared = await asyncio.to_thread(stack.enter_context, packed_file(spec_file))
        if prepared.packed is not None:
            await client.ensure_bundle(prepared.packed)
        key = request_id
        if not key and not force:
            message = encode_pipeline_spec(prepared.pipeline)
            content = message.SerializeToString(deterministic=True)
            key = request_key(client.namespace, content.hex())
        return await client.submit(
            prepared.pipeline, request_id=key, traceparent=given_traceparent()
        )


def _save(folder: Path, submitted: "Submitted") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    document = to_document(submitted.pipeline.spec)
    text = json.dumps(document, ensure_ascii=False, indent=2)
    (folder / f"{submitted.pipeline.id}.json").write_text(text + "\n", "utf-8")
