"""`shoal validate`: every mistake of a specification at once."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from shoal.specfile.load import SpecFile


@click.command()
@click.argument("paths", metavar="SPEC…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each file.")
@click.pass_context
def validate(ctx: click.Context, paths: tuple[Path, ...], *, as_json: bool) -> None:
    r"""Check specification files without a controller.

    \b
        shoal validate pipeline.yaml
        shoal validate tasks/*.yaml

    Every mistake is a line with file, line, column, field and remedy; the exit status is 2 if there
    is any. docs/spec.md explains every key.
    """
    from shoal.cli.document import print_document
    from shoal.specfile.load import load
    from shoal.specfile.mark import SpecFileError

    status = 0
    for path in paths:
        try:
            found = load(path)
        except SpecFileError as error:
            status = 2
            if as_json:
                print_document({"file": path, "valid": False, "findings": error.findings})
            else:
                click.echo(str(error), err=True)
            continue
        if as_json:
            print_document({"file": path, "valid": True, "pipeline": found.pipeline})
        else:
            click.echo(f"{path}: {_summary(found)}")
    ctx.exit(status)


def _summary(found: "SpecFile") -> str:
    from shoal import bundle
    from shoal.cli.figures import bytes_text

    jobs = found.pipeline.jobs
    words = [
        f"{sum(job.replicas for job in jobs)} jobs",
        f"{sum(len(job.streams) for job in jobs)} streams",
    ]
    if found.bundle is None:
        words.append("no bundle")
    else:
        files = [entry for entry in bundle.scan(found.bundle) if not entry.folder]
        size = bytes_text(sum(entry.size_bytes for entry in files))
        words.append(f"a bundle of {len(files)} files with {size}")
    return f"{found.pipeline.name} is valid: {', '.join(words)}"
