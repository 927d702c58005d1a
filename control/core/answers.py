"""What the control plane hands out beyond `shoal.view`: answers to submissions, pages, marks.

Pipelines, jobs, nodes, events and verdicts are shown as `shoal.view` has them, so that `shoal.wire`
translates them. Every picture was committed before it is shown, except for counters, free text and
`last_seen_time`, which are hearsay.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shoal.model import no_strings
from shoal.spec import Pipeline
from shoal.view import PipelineView
from shoal.wire.spec import encode_pipeline_spec

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """A part of a list; the token is empty on the last page."""

    items: tuple[ItemT, ...]
    next_page_token: str = ""


class RefusalCode(enum.IntEnum):
    """The few numbers of google.rpc.Code that the control plane refuses with."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNAVAILABLE = 14


@dataclass(frozen=True, slots=True)
class Submission:
    """A pipeline that is asked for; an empty `request_id` asks for a new one every time.

    `data` is the spec as it came, encoded; empty if it did not come so. `listings` are the digests of
    what was found for its folder inputs, by `JOB/INPUT` (`control.core.listings`); `refused` is why they
    could not be found, which does not matter where the request id has made a pipeline already. `traceparent` is the
    span that it is submitted in, empty for none. `stored` is the name of the stored version that it is of. `asked` is
    what the request asked for where that is not the spec: two of one request id are the same if it is equal.
    """

    namespace: str
    request_id: str
    spec: Pipeline
    data: bytes = field(default=b"", compare=False, repr=False)
    listings: Mapping[str, str] = field(default_factory=no_strings)
    refused: Refusal | None = None
    traceparent: str = field(default="", compare=False)
    stored: str = ""
    asked: bytes = field(default=b"", compare=False, repr=False)

    def encoded(self) -> bytes:
        """The encoded spec: equal for the same spec from the same client."""
        return self.data or encode_pipeline_spec(self.spec).SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The pipeline as recorded, and whether an earlier submission with this key had made it."""

    view: PipelineView
    repeated: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why what was asked for was not taken: code, upper-case reason, one sentence, details by name."""

    code: RefusalCode
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=no_strings)
