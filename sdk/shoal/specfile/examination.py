"""A text that was read as a specification, and everything that is wrong with it."""

from collections.abc import Collection

from shoal import bundle
from shoal.check import check_pipeline
from shoal.checks.problem import Path as FieldPath
from shoal.specfile.mark import Finding, Mark
from shoal.specfile.reader import Draft, Reader
from shoal.specfile.scalars import Scalars
from shoal.specfile.tree import read_tree
from shoal.specfile.values import GivenValues


class Examination:
    """Reads a text; what its bundle holds, if it names one, is looked at apart.

    Args:
        text: YAML.
        source: what to call the text in errors.
        values: by the name of a parameter, what to put in.
        may_lack: whether parameters may have no value yet; what they stand in is not looked at then.

    Attributes:
        draft: what could be read.

    Raises:
        SpecFileError: it is no YAML, or more of it than is read.
    """

    def __init__(
        self, text: str, source: str, values: GivenValues, *, may_lack: bool = False
    ) -> None:
        root = read_tree(text, source)
        self._scalars = Scalars()
        self.draft: Draft = Reader(self._scalars).read(root, values, may_lack=may_lack)

    def mark(self, path: FieldPath) -> Mark:
        """Say where a field stands, or the nearest thing around it."""
        return self._scalars.mark(path)

    def complain_of_bundle(self, message: str) -> None:
        """Note what is wrong with the bundle."""
        self._scalars.complain(("bundle",), message, self.mark(("bundle", "path")))

    def findings(
        self, files: Collection[str] | None, contents: bundle.Contents
    ) -> tuple[Finding, ...]:
        """Return all mistakes.

        Args:
            files: paths of the files of the bundle; None where they are not known.
            contents: of the bundle.
        """
        scalars = self._scalars
        layouts = None if files is None else contents.layouts()
        # Without complaints that only follow from what could not be read.
        violations = [
            Finding(scalars.mark(problem.path), problem.path, problem.message)
            for problem in check_pipeline(self.draft.pipeline, files, layouts)
            if not any(problem.path[: len(path)] == path for path in scalars.unread)
            and (self.draft.complete or not _about_other_jobs(problem.path))
        ]
        return tuple(scalars.with_values(one) for one in (*scalars.findings, *violations))


def _about_other_jobs(path: FieldPath) -> bool:
    match path:
        case ("jobs",) | ("jobs", _, "outputs", _) | ("jobs", _, "inputs", _, "from"):
            return True
        case _:
            return False
