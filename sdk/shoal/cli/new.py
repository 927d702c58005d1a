"""`shoal new`: a pipeline to begin with."""

import os
from pathlib import Path

import click

from shoal.scaffold import ScaffoldNameError, scaffold


@click.command()
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    r"""Make a folder with a pipeline that runs as it is: specification, job code, a test, a README.

    \b
        shoal new people-counter
        shoal simulate people-counter/pipeline.yaml
        shoal run people-counter/pipeline.yaml

    NAME is the folder's path; its last part names the pipeline. Nothing that exists is overwritten.
    """
    try:
        files = scaffold(folder.absolute().resolve().name)
    except ScaffoldNameError as error:
        raise click.UsageError(str(error)) from None
    if os.path.lexists(folder) and not folder.is_dir():
        raise click.ClickException(f"{folder} exists and is no folder; choose another name")
    existing = [path for path in files if os.path.lexists(folder / path)]
    if existing:
        raise click.ClickException(
            f"{folder} has {', '.join(existing)} already, and nothing is overwritten; "
            "choose another name, or move them away"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with (folder / path).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    click.echo(f"{folder}: {', '.join(files)}")
    spec = folder / "pipeline.yaml"
    click.echo(f"try: shoal simulate {spec}   or on a cluster: shoal run {spec}", err=True)
