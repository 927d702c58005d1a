"""The one hierarchical name, `pipelines/{p}/jobs/{j}/attempts/{n}`, and the ids in it.

The same string is the S3 prefix, the MQTT topic suffix and the log field, so that it can be pasted
anywhere. References are tuples: they are the keys of most that is remembered, and are hashed all the time.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeVar, cast

from shoal.limits import NUMBER_MAX

DEFAULT_NAMESPACE = "default"
"""What an empty namespace of a request means."""

ID_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,62}")
"""What an id of a namespace, pipeline, job, port or node looks like."""

RefT = TypeVar("RefT")

_ATTEMPT = re.compile(
    rf"pipelines/({ID_PATTERN.pattern})/jobs/({ID_PATTERN.pattern})/attempts/([0-9]{{1,10}})"
)


class _Made(Protocol):
    """Makes a reference of its parts."""

    def __call__(self, kind: type[RefT], parts: Iterable[object], /) -> RefT: ...


# What a named tuple has for that is a function of Python, which takes three times as long.
_made = cast("_Made", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


class InvalidNameError(ValueError):
    """A name that does not follow the pattern."""


def check_id(what: str, value: str) -> str:
    """Return `value` if it is a valid id.

    Args:
        what: The thing it names, for the error (`job`, `port`).
        value: The id to check.

    Raises:
        InvalidNameError: The value does not follow `[a-z][a-z0-9-]{0,62}`.
    """
    if ID_PATTERN.fullmatch(value) is None:
        raise InvalidNameError(
            f"{what} {value!r} is not a valid id: "
            "use a lower-case letter, then up to 62 lower-case letters, digits or hyphens"
        )
    return value


class PipelineRef(NamedTuple):
    """One pipeline by namespace and id."""

    namespace: str
    pipeline: str

    @property
    def name(self) -> str:
        """`pipelines/{pipeline}`."""
        return f"pipelines/{self.pipeline}"


class JobRef(NamedTuple):
    """One job (one replica) by namespace, pipeline and job id."""

    namespace: str
    pipeline: str
    job: str

    @property
    def name(self) -> str:
        """`pipelines/{pipeline}/jobs/{job}`."""
        return f"pipelines/{self.pipeline}/jobs/{self.job}"

    @property
    def pipeline_ref(self) -> PipelineRef:
        """The pipeline that the job belongs to."""
        return _made(PipelineRef, self[:2])


class AttemptRef(NamedTuple):
    """One attempt and the epoch of its placement."""

    namespace: str
    pipeline: str
    job: str
    number: int
    epoch: int

    @property
    def name(self) -> str:
        """`pipelines/{pipeline}/jobs/{job}/attempts/{number}`."""
        return f"pipelines/{self.pipeline}/jobs/{self.job}/attempts/{self.number}"

    @property
    def job_ref(self) -> JobRef:
        """The job that the attempt tries."""
        return _made(JobRef, self[:3])

    @property
    def pipeline_ref(self) -> PipelineRef:
        """The pipeline that the job belongs to."""
        return _made(PipelineRef, self[:2])

    @property
    def prefix(self) -> str:
        """Where this attempt alone writes in the archive, without a slash at the end."""
        return (
            f"{self.namespace}/pipelines/{self.pipeline}/jobs/{self.job}"
            f"/attempts/{self.epoch}-{self.number}"
        )


def parse_pipeline(name: str, namespace: str = "default") -> PipelineRef:
    """Read `pipelines/{p}` or a bare id.

    Raises:
        InvalidNameError: It is neither.
    """
    match name.split("/"):
        case ["pipelines", pipeline] | [pipeline]:
            return PipelineRef(check_id("namespace", namespace), check_id("pipeline", pipeline))
        case _:
            raise InvalidNameError(
                f"{name!r} does not name a pipeline: write pipelines/ID or the ID alone"
            )


def parse_job(name: str, namespace: str = "default") -> JobRef:
    """Read `pipelines/{p}/jobs/{j}` or its short form `{p}/{j}`.

    Raises:
        InvalidNameError: It is neither.
    """
    match name.split("/"):
        case ["pipelines", pipeline, "jobs", job] | [pipeline, job]:
            return JobRef(
                check_id("namespace", namespace),
                check_id("pipeline", pipeline),
                check_id("job", job),
            )
        case _:
            raise InvalidNameError(f"{name!r} does not name a job: write pipelines/P/jobs/J or P/J")


def parse_attempt(name: str, namespace: str, epoch: int) -> AttemptRef:
    """Read `pipelines/{p}/jobs/{j}/attempts/{n}`.

    Raises:
        InvalidNameError: It is something else.
    """
    if (found := _ATTEMPT.fullmatch(name)) and ID_PATTERN.fullmatch(namespace):
        pipeline, job, digits = found.groups()
        if (count := int(digits)) <= NUMBER_MAX:
            return _made(AttemptRef, (namespace, pipeline, job, count, epoch))
    match name.split("/"):  # something is wrong with it: what, is said
        case ["pipelines", pipeline, "jobs", job, "attempts", number] if _is_number(number):
            return AttemptRef(
                check_id("namespace", namespace),
                check_id("pipeline", pipeline),
                check_id("job", job),
                int(number),
                epoch,
            )
        case _:
            raise InvalidNameError(
                f"{name!r} does not name an attempt: write pipelines/P/jobs/J/attempts/N"
            )


def stored_name(name: str, version: int) -> str:
    """Name a version of a stored pipeline."""
    return f"stored/{name}/versions/{version}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= NUMBER_MAX
