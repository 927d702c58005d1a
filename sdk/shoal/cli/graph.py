"""`shoal graph`: a pipeline as a drawing."""

import subprocess
from pathlib import Path

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options, run_async
from shoal.cli.values_option import refuse_values, values_options
from shoal.errors import ShoalError
from shoal.graph import Graph, dot, graph_of, mermaid
from shoal.specfile.folder import is_spec_folder
from shoal.specfile.values import GivenValue

_DRAWING_SECONDS = 60.0


@click.command()
@click.argument("what", metavar="SPEC|PIPELINE", shell_complete=name_completion.specs_or_pipelines)
@click.option(
    "--svg",
    "svg_path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write an SVG there (- for stdout), drawn by Graphviz, instead of Mermaid to stdout.",
)
@values_options
@controller_options
def graph(target: Target, what: str, svg_path: Path | None, given: dict[str, GivenValue]) -> None:
    r"""Draw the jobs and streams of a specification, or of a pipeline with its states.

    \b
        shoal graph pipeline.yaml                       Mermaid, for documents
        shoal graph --svg graph.svg pipeline.yaml
        shoal graph --svg graph.svg people-counter-4f2a

    A file is read without a controller; anything that is no file is the name of a pipeline.
    """
    if _is_file(what):
        from shoal.cli.packing import load_all

        (read,) = load_all([Path(what)], given)
        found = graph_of(read.pipeline)
    else:
        refuse_values(given, "a pipeline got its own when it was submitted")
        found = run_async(_of_pipeline(target, what))
    if svg_path is None:
        click.echo(mermaid(found), nl=False)
    elif str(svg_path) == "-":
        click.echo(svg(found), nl=False)
    else:
        try:
            svg_path.write_text(svg(found), "utf-8")
        except OSError as error:
            raise click.ClickException(
                f"{svg_path}: {error.strerror}; make the folder of it, or choose another file"
            ) from None


def _is_file(what: str) -> bool:
    # A file that was mistyped is better missed by its name than looked up as a pipeline.
    # A folder is often what `shoal get` made, and has the name of its pipeline.
    path = Path(what)
    return path.is_file() or what.endswith((".yaml", ".yml")) or is_spec_folder(path)


async def _of_pipeline(target: Target, name: str) -> Graph:
    async with target.client() as client:
        pipeline = await chosen(client, name)
    return graph_of(pipeline.spec, pipeline.jobs)


def svg(graph: Graph) -> str:
    """Draw the graph as an SVG document; blocks.

    Raises:
        ShoalError: Graphviz is not installed, or fails.
    """
    try:
        done = subprocess.run(
            ["dot", "-Tsvg"],  # wherever the user has it
            input=dot(graph).encode(),
            capture_output=True,
            timeout=_DRAWING_SECONDS,
            check=True,
        )
    except FileNotFoundError:
        raise ShoalError(
            "GRAPHVIZ",
            "an SVG is drawn by Graphviz, and there is no program `dot`: install it "
            "(apt-get install graphviz, brew install graphviz), or leave --svg out for Mermaid",
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise ShoalError(
            "GRAPHVIZ",
            f"Graphviz could not draw {graph.name}: {said.decode(errors='replace') or error}; "
            "leave --svg out for Mermaid",
        ) from error
    return done.stdout.decode()
