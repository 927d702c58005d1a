"""Specifications that the controller reads itself: what is wrong with one, and what it asks for.

Rules. A text is read in memory alone: no folder and no file of the controller is opened for it, so its bundle is one
that the archive has, by its digest. A text is read on one thread, one after the other, since it costs up to a
second of a core, and that thread rests after each long one (`reading_pace.py`). Those that wait are bounded.

Example: `bundle: ../..` in a text names no folder here. Without a digest that is a mistake of the text, whose remedy
says how the folder is uploaded.
"""

import threading
from asyncio import wrap_future
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import grpc

from control.core.admission import PROBLEMS_MAX
from control.front.object_key import bundle_key
from control.front.reading_pace import ReadingPace
from control.front.rpc_status import invalid
from control.front.source_rule import SourceRule
from services.runtime.rpc import rpc_error
from shoal import bundle
from shoal.check import check_pipeline
from shoal.checks.problem import Path as FieldPath
from shoal.model import no_strings
from shoal.parameter import Parameter
from shoal.redaction import redacted
from shoal.secret import SecretUse
from shoal.spec import Pipeline
from shoal.spec_report import SpecProblem, SpecReport
from shoal.spec_text import PipelineSource, SpecText
from shoal.specfile.examination import Examination
from shoal.specfile.mark import Finding, Mark, SpecFileError
from shoal.specfile.values import GivenValue
from shoal.wire.known_specs import made_of_spec

WAITING_MAX: Final = 32
"""Most texts that are read or wait for that."""
SHOWN_MAX: Final = 200
"""Most problems of one answer."""
_BUSY_SECONDS: Final = 2.0

_NO_FOLDER: Final = (
    "a controller reads no folder: upload the bundle (as `shoal submit` does, by FindMissingBundles and UploadBundle), "
    "and give its SHA-256 as `bundle_digest`; or leave `bundle` out"
)
_NO_BUNDLE: Final = "the text names no bundle, and `bundle_digest` is given; add `bundle: .`, or leave the digest out"

Lack = Callable[[str, Sequence[SecretUse]], str]
"""Says which of the secrets of a namespace a job lacks; empty for none."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class ReadSource:
    """A specification that was read.

    Attributes:
        pipeline: what it asks for; None if its text has a mistake.
        parameters: those that its text declares.
        problems: everything that is wrong with it, wherever it runs.
        place: says where a field of it stands.
    """

    pipeline: Pipeline | None
    parameters: tuple[Parameter, ...]
    problems: tuple[SpecProblem, ...]
    place: Callable[[FieldPath], Mark] | None = None

    def problem(self, path: FieldPath, message: str) -> SpecProblem:
        """Return a problem of a field, where that stands."""
        if self.place is None:
            return SpecProblem(".".join(path), message)
        return _problem(Finding(self.place(path), path, message))


class SourceReader:
    """Reads specifications, and looks whether this cluster could run them now; `close` it.

    Args:
        rule: which sources of file inputs may be read.
        has: says whether the archive has an object, which then stays for a while.
        lack: looks at secrets.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rule: SourceRule,
        has: Callable[[str], Awaitable[bool]],
        lack: Lack,
        clock: Callable[[], float],
    ) -> None:
        self._rule = rule
        self._has = has
        self._lack = lack
        self._room = threading.BoundedSemaphore(WAITING_MAX)
        self._thread = ThreadPoolExecutor(1, "spec-reader")
        self._clock = clock
        self._pace = ReadingPace()
        self._closing = threading.Event()

    def close(self) -> None:
        """Read nothing more; what is being read is left off."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def read(
        self,
        source: PipelineSource,
        values: Mapping[str, str] = no_strings(),
        *,
        may_lack: bool = False,
    ) -> ReadSource:
        """Read a specification.

        Args:
            source: read already, or as text.
            values: of parameters, in the place of those of a text.
            may_lack: whether parameters of a text may have no value yet; what they stand in is not looked at then.

        Raises:
            RpcError: too many wait to be read.
        """
        return await self._apart(lambda: _read(source, values, may_lack=may_lack))

    async def report(self, namespace: str, source: PipelineSource) -> SpecReport:
        """Say all that is wrong with a specification, if it were submitted now.

        Raises:
            RpcError: too many wait to be read.
            ArchiveError: the archive does not answer.
        """
        found = await self.read(source)
        problems = list(found.problems)
        pipeline = found.pipeline
        if pipeline is not None:
            if (told := self._rule.problem(namespace, pipeline)) is not None:
                problems.append(found.problem(tuple(told[0].split(".")), told[1]))
            problems += [
                found.problem(("jobs", job.name, "secrets"), lack)
                for job in pipeline.jobs
                if (lack := self._lack(namespace, job.secrets))
            ]
            if missing := await self.missing_bundle(pipeline.bundle_digest):
                problems.append(found.problem(("bundle",), missing))
        problems.sort(key=lambda one: (one.line, one.column))
        left_out = max(0, len(problems) - SHOWN_MAX)
        shown = None if found.problems else pipeline
        return SpecReport(tuple(problems[:SHOWN_MAX]), left_out, shown, found.parameters)

    async def runnable(
        self, source: PipelineSource, values: Mapping[str, str] = no_strings()
    ) -> Pipeline:
        """Read a specification that is to run now.

        Raises:
            RpcError: it cannot be read, or its bundle is not there.
        """
        found = await self.read(source, values)
        self.refuse(found)
        if found.pipeline is None:
            raise TypeError("a specification without a mistake was not read")
        await self.require_bundle(found.pipeline.bundle_digest)
        return found.pipeline

    def refuse(self, found: ReadSource) -> None:
        """Refuse what has problems.

        Raises:
            RpcError: it has.
        """
        if not found.problems:
            return
        more = len(found.problems) - 1
        said = f" (and {more} more: ValidateSpec tells all)" if more else ""
        details = {one.field or "source": str(one) for one in found.problems[:PROBLEMS_MAX]}
        raise invalid(
            "INVALID_SPEC", f"the specification cannot run: {found.problems[0]}{said}", **details
        )

    async def require_bundle(self, digest: str) -> None:
        """Let a bundle pass that the archive has, or none.

        Raises:
            RpcError: it has not.
        """
        if missing := await self.missing_bundle(digest):
            raise rpc_error(
                grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_MISSING", missing, {"bundle": digest}
            )

    async def missing_bundle(self, digest: str) -> str:
        """Say that the archive does not have a bundle; empty if it has, and for none."""
        if not digest or await self._has(bundle_key(digest)):
            return ""
        return (
            f"bundle {digest} is not in the archive: upload its folder (`shoal submit` does, or FindMissingBundles and "
            "UploadBundle), and ask again"
        )

    async def _apart(self, work: Callable[[], ResultT]) -> ResultT:
        if not self._room.acquire(blocking=False):
            raise rpc_error(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "BUSY",
                f"{WAITING_MAX} specifications wait to be read: ask again in {_BUSY_SECONDS:g} s",
                retry_seconds=_BUSY_SECONDS,
            )
        future = self._thread.submit(self._paced, work)
        # Not when its caller leaves: the thread may still be at it.
        future.add_done_callback(lambda _: self._room.release())
        return await wrap_future(future)

    def _paced(self, work: Callable[[], ResultT]) -> ResultT:
        """Work on the thread, once it has rested from what it did before."""
        if rest := self._pace.rest_seconds(self._clock()):
            self._closing.wait(rest)
        began = self._clock()
        try:
            return work()
        finally:
            self._pace.worked(began, self._clock())


def _read(source: PipelineSource, values: Mapping[str, str], *, may_lack: bool) -> ReadSource:
    if isinstance(source, Pipeline):
        found = [
            SpecProblem(".".join(one.path), one.message)
            for one in made_of_spec(source, check_pipeline)
        ]
        if values:
            names = ", ".join(sorted(values)[:3])
            told = f"it declares no parameters, and {names} is given; leave it out, or keep the text with parameters"
            found.append(SpecProblem("parameters", told))
        return ReadSource(source, (), tuple(found))
    return _read_text(source, values, may_lack=may_lack)


def _read_text(source: SpecText, values: Mapping[str, str], *, may_lack: bool) -> ReadSource:
    given = {
        name: GivenValue(value, "the request")
        for name, value in {**source.values, **values}.items()
    }
    try:
        examination = Examination(source.text, "", given, may_lack=may_lack)
    except SpecFileError as error:
        return ReadSource(None, (), tuple(map(_problem, error.findings)))
    draft = examination.draft
    if draft.bundle is not None and not source.bundle_digest:
        examination.complain_of_bundle(_NO_FOLDER)
    elif draft.bundle is None and source.bundle_digest:
        examination.complain_of_bundle(_NO_BUNDLE)
    # What the bundle holds is not looked at here; its client knows.
    files = frozenset[str]() if draft.bundle is None else None
    findings = examination.findings(files, bundle.Contents(()))
    problems = tuple(sorted(map(_problem, findings), key=lambda one: (one.line, one.column)))
    pipeline = replace(draft.pipeline, bundle_digest=source.bundle_digest)
    return ReadSource(None if problems else pipeline, draft.parameters, problems, examination.mark)


def _problem(finding: Finding) -> SpecProblem:
    return SpecProblem(
        ".".join(finding.path), redacted(finding.message), finding.mark.line, finding.mark.column
    )
