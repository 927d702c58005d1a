"""From what the user named to a specification with its packed bundle."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import click

from shoal import bundle, spec
from shoal.local.port_file import PortFile
from shoal.local.replay import replayed
from shoal.specfile.load import SpecFile, load
from shoal.specfile.mark import SpecFileError
from shoal.specfile.values import GivenValues

T = TypeVar("T")


class BadSpecError(click.ClickException):
    """Specification files with mistakes; ends the command with status 2 and every mistake."""

    exit_code = 2

    def __init__(self, errors: Sequence[SpecFileError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in errors))

    def show(self, file: object = None) -> None:
        """Write one line for each mistake, as compilers do, so that editors find the place."""
        del file
        click.echo(self.format_message(), err=True)
        count = sum(len(error.findings) for error in self.errors)
        word = "mistake" if count == 1 else "mistakes"
        click.echo(f"{count} {word}; nothing was submitted", err=True)


@dataclass(frozen=True, slots=True)
class PackedPipeline:
    """A specification that names its bundle, the bundle if it has one, and where local jobs work."""

    pipeline: spec.Pipeline
    packed: bundle.PackedBundle | None
    folder: Path = field(default_factory=Path.cwd)


def load_all(paths: Sequence[Path], given: GivenValues) -> list[SpecFile]:
    """Read specification files, each with the values that were given.

    Raises:
        BadSpecError: with the mistakes of all of them.
    """
    return read_all(lambda path: load(path, given), paths)


def read_all(read: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    """Read files of users.

    Raises:
        BadSpecError: with the mistakes of all of them.
    """
    found: list[T] = []
    errors: list[SpecFileError] = []
    for path in paths:
        try:
            found.append(read(path))
        except SpecFileError as error:
            errors.append(error)
    if errors:
        raise BadSpecError(errors)
    return found


@contextlib.contextmanager
def packed_file(
    spec_file: SpecFile, recordings: Sequence[PortFile] = (), pace: str = "fast"
) -> Iterator[PackedPipeline]:
    """Pack a specification file, in which recordings may stand in for jobs, for as long as it is needed.

    Raises:
        ReplayError: a recording does not fit.
    """
    pipeline, folder = spec_file.pipeline, spec_file.path.parent
    entries: tuple[bundle.Entry, ...] = ()
    if recordings:
        pipeline, entries = replayed(pipeline, recordings, pace)
    if spec_file.bundle is not None:
        folder = spec_file.bundle.path
        entries = (*bundle.scan(spec_file.bundle), *entries)
    with packed_entries(pipeline, entries) as prepared:
        yield replace(prepared, folder=folder.absolute())


@contextlib.contextmanager
def packed_entries(
    pipeline: spec.Pipeline, entries: Sequence[bundle.Entry]
) -> Iterator[PackedPipeline]:
    """Pack entries as the bundle of a pipeline for as long as it is needed."""
    if not entries:
        yield PackedPipeline(pipeline, None)
        return
    with contextlib.ExitStack() as stack:
        try:
            packed = stack.enter_context(bundle.pack_entries(entries))
        except bundle.BundleError as error:
            raise click.ClickException(str(error)) from None
        yield PackedPipeline(replace(pipeline, bundle_digest=packed.digest), packed)
