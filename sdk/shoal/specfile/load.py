"""A specification file with its bundle folder, checked."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shoal import bundle, spec
from shoal.check import check_pipeline
from shoal.checks.problem import Path as FieldPath
from shoal.parameter import Parameter
from shoal.specfile.folder import NAMES, missing_remedy, spec_path
from shoal.specfile.mark import Finding, SpecFileError, unusable
from shoal.specfile.reader import Draft, Reader
from shoal.specfile.scalars import Scalars
from shoal.specfile.source_text import read_source
from shoal.specfile.tree import read_tree
from shoal.specfile.values import NONE_GIVEN, GivenValues


@dataclass(frozen=True, slots=True)
class SpecFile:
    """What a file asks for.

    `pipeline.bundle_digest` is empty until the bundle is packed; `bundle` is None when the file
    names none; `parameters` are those that it declares.
    """

    path: Path
    pipeline: spec.Pipeline
    bundle: bundle.BundleFolder | None
    parameters: tuple[Parameter, ...] = ()


def load(path: Path, values: GivenValues = NONE_GIVEN) -> SpecFile:
    """Read a specification file and look into the folder that it names as its bundle.

    Args:
        path: the file, or a folder with a `pipeline.yaml`.
        values: by the name of a parameter, what to put in; the others have their defaults.

    Raises:
        SpecFileError: with everything that is wrong with the file.
    """
    path = spec_path(path)
    if path.is_dir():
        raise unusable(str(path), f"the folder has no {NAMES[0]}; {missing_remedy(path)}")
    return parse(read_source(path), str(path), path.parent, values)


def parse(text: str, source: str, folder: Path, values: GivenValues = NONE_GIVEN) -> SpecFile:
    """Read the text of a specification file.

    Args:
        text: YAML.
        source: what to call the text in errors.
        folder: what the bundle's path is relative to.
        values: by the name of a parameter, what to put in.

    Raises:
        SpecFileError: with everything that is wrong with the text.
    """
    root = read_tree(text, source)
    scalars = Scalars()
    draft = Reader(scalars).read(root, values)
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
    findings = [scalars.with_values(finding) for finding in (*scalars.findings, *violations)]
    if findings:
        raise SpecFileError(source, findings)
    return SpecFile(Path(source), draft.pipeline, found, draft.parameters)


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
