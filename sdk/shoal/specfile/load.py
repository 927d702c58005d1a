"""A specification file with its bundle folder, checked."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shoal import bundle, spec
from shoal.check import check_pipeline
from shoal.checks.problem import Path as FieldPath
from shoal.specfile.mark import Finding, Mark, SpecFileError
from shoal.specfile.reader import Draft, Reader
from shoal.specfile.scalars import Scalars
from shoal.specfile.tree import BYTES_MAX, TreeError, read_tree


@dataclass(frozen=True, slots=True)
class SpecFile:
    """What a file asks for.

    `pipeline.bundle_digest` is empty until the bundle is packed; `bundle` is None when the file
    names none.
    """

    path: Path
    pipeline: spec.Pipeline
    bundle: bundle.BundleFolder | None


def load(path: Path) -> SpecFile:
    """Read a specification file and look into the folder that it names as its bundle.

    Raises:
        SpecFileError: with everything that is wrong with the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX * 4 + 1)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        raise SpecFileError(str(path), (Finding(Mark(1, 1), (), message),)) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise SpecFileError(str(path), (Finding(Mark(line, column), (), message),)) from None
    return parse(text, str(path), path.parent)


def parse(text: str, source: str, folder: Path) -> SpecFile:
    """Read the text of a specification file.

    Args:
        text: YAML.
        source: what to call the text in errors.
        folder: what the bundle's path is relative to.

    Raises:
        SpecFileError: with everything that is wrong with the text.
    """
    try:
        root = read_tree(text)
    except TreeError as error:
        raise SpecFileError(source, (error.finding,)) from None
    scalars = Scalars()
    draft = Reader(scalars).read(root)
    found = None
    names: Collection[str] | None = frozenset()
    entries: tuple[bundle.Entry, ...] = ()
    if draft.bundle is not None:
        found = bundle.BundleFolder(folder / draft.bundle, draft.exclude)
        try:
            entries = bundle.scan(found)
            names = bundle.file_names(entries)
        except bundle.BundleError as error:
            names = None
            scalars.complain(("bundle",), str(error), scalars.mark(("bundle", "path")))
    violations = _violations(draft, names, bundle.Contents(entries), scalars)
    findings = [*scalars.findings, *violations]
    if findings:
        raise SpecFileError(source, tuple(sorted(findings, key=lambda finding: finding.mark)))
    return SpecFile(Path(source), draft.pipeline, found)


def _violations(
    draft: Draft, names: Collection[str] | None, contents: bundle.Contents, scalars: Scalars
) -> list[Finding]:
    """Check what could be read, without complaints that only follow from what could not."""
    layouts = None if names is None else contents.layouts()
    return [
        Finding(scalars.mark(problem.path), problem.path, problem.message)
        for problem in check_pipeline(draft.pipeline, names, layouts)
        if not any(problem.path[: len(path)] == path for path in scalars.unread)
        and (draft.complete or not _about_other_jobs(problem.path))
    ]


def _about_other_jobs(path: FieldPath) -> bool:
    match path:
        case ("jobs",) | ("jobs", _, "outputs", _) | ("jobs", _, "inputs", _, "from"):
            return True
        case _:
            return False
