"""`shoal validate`: every mistake of a specification at once."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.document import print_document
from shoal.cli.figures import bytes_text, counted
from shoal.cli.values_option import values_options
from shoal.parameter import Parameter, shown_value
from shoal.redaction import redacted
from shoal.specfile.mark import SpecFileError
from shoal.specfile.values import GivenValue

if TYPE_CHECKING:
    from shoal.specfile.load import SpecFile


@click.command()
@click.argument("paths", metavar="SPEC…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each file.")
@values_options
@click.pass_context
def validate(
    ctx: click.Context,
    /,
    paths: tuple[Path, ...],
    *,
    as_json: bool,
    given: dict[str, GivenValue],
) -> None:
    r"""Check specification files without a controller.

    \b
        shoal validate pipeline.yaml
        shoal validate tasks/*.yaml
        shoal validate --set limit=20 pipeline.yaml

    Every mistake is a line with file, line, column, field and remedy; the exit status is 2 if there
    is any. docs/spec.md explains every key.
    """
    from shoal.specfile.load import load

    status = 0
    for path in paths:
        try:
            found = load(path, given)
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
            for parameter in found.parameters:
                click.echo(f"  {_parameter(parameter, found)}")
    ctx.exit(status)


def _summary(found: "SpecFile") -> str:
    from shoal import bundle

    jobs = found.pipeline.jobs
    words = [
        counted(sum(job.replicas for job in jobs), "job"),
        counted(sum(len(job.streams) for job in jobs), "stream"),
    ]
    if found.bundle is None:
        words.append("no bundle")
    else:
        files = [entry for entry in bundle.scan(found.bundle) if not entry.folder]
        size = bytes_text(sum(entry.size_bytes for entry in files))
        words.append(f"a bundle of {counted(len(files), 'file')} with {size}")
    return f"{found.pipeline.name} is valid: {', '.join(words)}"


def _parameter(parameter: Parameter, found: "SpecFile") -> str:
    value = found.pipeline.parameters[parameter.name]
    words = [parameter.type.value]
    if parameter.choices:
        words.append(f"one of {', '.join(map(shown_value, parameter.choices))}")
    if parameter.default is not None and value != parameter.default:
        words.append(f"{shown_value(parameter.default)} by default")
    line = f"{parameter.name} = {shown_value(value)}  ({', '.join(words)})"
    return redacted(f"{line}  {parameter.description}".rstrip())
