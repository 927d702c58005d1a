"""`shoal stored`: specifications that a namespace keeps under a name, with versions."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.cli.values_option import values_options
from shoal.specfile.values import GivenValue

if TYPE_CHECKING:
    from shoal.client import Client
    from shoal.spec_text import SpecText


@click.group(cls=SuggestingGroup)
def stored() -> None:
    r"""Keep specifications under names, with versions, and run them by name.

    \b
        shoal stored create street pipeline.yaml
        shoal stored update street pipeline.yaml
        shoal stored submit street --set limit=20
        shoal stored list

    Each update is a version with the next number, and never changes. The text of the file is kept with its parameters;
    --set and --values give values that are kept with it, and that a submission may replace.
    """


_NAME = click.argument("name", shell_complete=name_completion.stored)
_SPEC = click.argument("path", metavar="SPEC", type=click.Path(path_type=Path))
_DESCRIPTION = click.option("--description", default="", help="What it is for, for people.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One line of JSON.")


@stored.command()
@_NAME
@_SPEC
@_DESCRIPTION
@values_options
@controller_options
async def create(
    target: Target, *, name: str, path: Path, description: str, given: dict[str, GivenValue]
) -> None:
    """Keep the specification SPEC, a file or a folder with a pipeline.yaml, as the first version of NAME."""
    async with target.client() as client:
        source = await _source(client, path, given)
        kept = await client.store(name, source, description=description)
    click.echo(f"{kept.name} has version {kept.version}")


@stored.command()
@_NAME
@_SPEC
@_DESCRIPTION
@click.option(
    "--of",
    "version",
    type=click.IntRange(min=1),
    help="Version that this is an update of; refused if that is not the newest.  [default: the newest]",
)
@values_options
@controller_options
async def update(
    target: Target,
    *,
    name: str,
    path: Path,
    description: str,
    version: int | None,
    given: dict[str, GivenValue],
) -> None:
    """Keep the specification SPEC as the next version of NAME."""
    async with target.client() as client:
        source = await _source(client, path, given)
        before = await client.get_stored(name)
        kept = await client.update_stored(
            name,
            source,
            version=version or before.newest_version,
            description=description or before.description,
        )
    click.echo(f"{kept.name} has version {kept.version}")


@stored.command("list")
@_JSON
@controller_options
async def list_stored(target: Target, *, as_json: bool) -> None:
    """List the names of the namespace, each with its newest version."""
    from shoal.cli.stored_table import stored_table
    from shoal.cli.tables import show

    async with target.client() as client:
        found = [one async for one in client.list_stored()]
    if as_json:
        for one in found:
            print_document(one)
    elif found:
        show(stored_table(found, datetime.now(UTC)))
    else:
        click.echo(
            f"there are no stored pipelines in namespace {target.namespace}; keep one with: shoal stored create NAME "
            "SPEC",
            err=True,
        )


@stored.command()
@_NAME
@_JSON
@controller_options
async def versions(target: Target, *, name: str, as_json: bool) -> None:
    """List the versions of NAME that are kept, newest first."""
    from shoal.cli.stored_table import stored_table
    from shoal.cli.tables import show

    async with target.client() as client:
        found = await client.stored_versions(name)
    if as_json:
        for one in found:
            print_document(one)
    else:
        show(stored_table(found, datetime.now(UTC)))


@stored.command("show")
@_NAME
@click.option("--version", type=click.IntRange(min=1), help="Which one.  [default: the newest]")
@_JSON
@controller_options
async def show_one(target: Target, *, name: str, version: int | None, as_json: bool) -> None:
    """Print the specification of NAME as it was kept: the text of its file, or as JSON."""
    from shoal.spec_text import SpecText

    async with target.client() as client:
        found = await client.get_stored(name, version or 0)
    if as_json or not isinstance(found.source, SpecText):
        print_document(found)
        return
    click.echo(found.source.text, nl=not found.source.text.endswith("\n"))
    lines = [f"version {found.version} of {found.newest_version}", found.description]
    lines += [f"{key} = {value}" for key, value in found.source.values.items()]
    if found.bundle_digest:
        lines.append(f"bundle {found.bundle_digest}")
    for line in filter(None, lines):
        click.echo(line, err=True)


@stored.command()
@_NAME
@click.option("--version", type=click.IntRange(min=1), help="Only if this is the newest version.")
@controller_options
async def rm(target: Target, *, name: str, version: int | None) -> None:
    """Forget all versions of NAME; pipelines that run go on."""
    async with target.client() as client:
        await client.delete_stored(name, version=version or 0)
    click.echo(f"stored pipeline {name} of namespace {target.namespace} is removed", err=True)


@stored.command()
@_NAME
@click.option("--version", type=click.IntRange(min=1), help="Which one.  [default: the newest]")
@click.option("--request-id", default="", help="Idempotency key.")
@_JSON
@values_options
@controller_options
async def submit(
    target: Target,
    *,
    name: str,
    version: int | None,
    request_id: str,
    as_json: bool,
    given: dict[str, GivenValue],
) -> None:
    """Submit NAME, and return once that is recorded; prints the name of the pipeline."""
    async with target.client() as client:
        answer = await client.submit_stored(
            name, version=version or 0, values=_texts(given), request_id=request_id
        )
    if as_json:
        print_document(answer)
    else:
        click.echo(answer.pipeline.name)


async def _source(client: "Client", path: Path, given: dict[str, GivenValue]) -> "SpecText":
    """Read a file as its text, see that it is right, and upload its bundle."""
    from shoal import bundle
    from shoal.cli.local_jobs import refuse_local
    from shoal.cli.packing import packed_entries, read_all
    from shoal.spec_text import SpecText
    from shoal.specfile.folder import spec_path
    from shoal.specfile.load import load
    from shoal.specfile.source_text import read_source

    (found,) = await asyncio.to_thread(
        read_all, lambda one: load(one, given, may_lack=True), [path]
    )
    refuse_local(found.pipeline)
    text = await asyncio.to_thread(lambda: read_source(spec_path(path)))
    source = SpecText(text, _texts(given))
    if found.bundle is None:
        return source
    entries = await asyncio.to_thread(bundle.scan, found.bundle)
    with contextlib.ExitStack() as stack:
        prepared = await asyncio.to_thread(
            stack.enter_context, packed_entries(found.pipeline, entries)
        )
        if prepared.packed is not None:
            await client.ensure_bundle(prepared.packed)
        return replace(source, bundle_digest=prepared.pipeline.bundle_digest)


def _texts(given: dict[str, GivenValue]) -> dict[str, str]:
    """Return values as the text that they are sent as."""
    from shoal.parameter import value_text

    return {name: value_text(one.value) for name, one in given.items()}
