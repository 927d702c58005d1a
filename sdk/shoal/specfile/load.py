"""A specification file with its bundle folder, checked."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shoal import bundle, spec
from shoal.parameter import Parameter
from shoal.specfile.examination import Examination
from shoal.specfile.folder import NAMES, missing_remedy, spec_path
from shoal.specfile.mark import SpecFileError, unusable
from shoal.specfile.source_text import read_source
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


def load(path: Path, values: GivenValues = NONE_GIVEN, *, may_lack: bool = False) -> SpecFile:
    """Read a specification file and look into the folder that it names as its bundle.

    Args:
        path: the file, or a folder with a `pipeline.yaml`.
        values: by the name of a parameter, what to put in; the others have their defaults.
        may_lack: whether parameters may have no value yet; the specification is not whole then.

    Raises:
        SpecFileError: with everything that is wrong with the file.
    """
    path = spec_path(path)
    if path.is_dir():
        raise unusable(str(path), f"the folder has no {NAMES[0]}; {missing_remedy(path)}")
    return parse(read_source(path), str(path), path.parent, values, may_lack=may_lack)


def parse(
    text: str,
    source: str,
    folder: Path,
    values: GivenValues = NONE_GIVEN,
    *,
    may_lack: bool = False,
) -> SpecFile:
    """Read the text of a specification file.

    Args:
        text: YAML.
        source: what to call the text in errors.
        folder: what the bundle's path is relative to.
        values: by the name of a parameter, what to put in.
        may_lack: whether parameters may have no value yet; the specification is not whole then.

    Raises:
        SpecFileError: with everything that is wrong with the text.
    """
    examination = Examination(text, source, values, may_lack=may_lack)
    draft = examination.draft
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
            examination.complain_of_bundle(str(error))
    findings = examination.findings(names, bundle.Contents(entries))
    if findings:
        raise SpecFileError(source, findings)
    return SpecFile(Path(source), draft.pipeline, found, draft.parameters)
