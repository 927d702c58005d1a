"""The fields that many requests have, read and checked."""

import re
from collections.abc import Iterable, Sequence

from control.core.event_query import EventQuery
from control.front.read_model import PAGE_SIZE
from control.front.rpc_status import invalid
from shoal.model import PipelineState
from shoal.names import DEFAULT_NAMESPACE, JobRef, PipelineRef, check_id, parse_job, parse_pipeline
from shoal.wire.state import PIPELINE_STATE

PAGE_SIZE_MAX = 1000
EVENT_TYPES_MAX = 32
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_.-]{0,99}\*?")


def namespace_of(value: str) -> str:
    """Return the namespace; empty means `default`.

    Raises:
        InvalidNameError: when it is none.
    """
    return check_id("namespace", value or DEFAULT_NAMESPACE)


def pipeline_of(name: str, namespace: str) -> PipelineRef:
    """Read `pipelines/{p}` or a bare id.

    Raises:
        InvalidNameError: when it is neither.
    """
    return parse_pipeline(name, namespace_of(namespace))


def job_of(name: str, namespace: str) -> JobRef:
    """Read `pipelines/{p}/jobs/{j}` or `{p}/{j}`.

    Raises:
        InvalidNameError: when it is neither.
    """
    return parse_job(name, namespace_of(namespace))


def page_size_of(value: int) -> int:
    """Return how many items a page may have: 0 means 100, and 1,000 is the most.

    Raises:
        RpcError: when it is negative.
    """
    if value < 0:
        raise invalid(
            "INVALID_PAGE_SIZE",
            f"page_size is {value}; use 0 for {PAGE_SIZE}, or up to {PAGE_SIZE_MAX}",
            field="page_size",
        )
    return min(value or PAGE_SIZE, PAGE_SIZE_MAX)


def states_of(values: Iterable[int]) -> frozenset[PipelineState]:
    """Return the states that are asked for; none means all.

    Raises:
        WireError: when one of them is not known.
    """
    return frozenset(
        PIPELINE_STATE.decode(value, f"states[{index}]") for index, value in enumerate(values)
    )


def event_query(name: str, namespace: str, types: Sequence[str], *, bound: str) -> EventQuery:
    """Return which events are asked for, at any time.

    Args:
        name: `pipelines/{p}`; empty for all.
        namespace: of the pipelines.
        types: of the events, some of them with a `*` at the end.
        bound: the only namespace of the caller; empty for one that may hear of identities, too.

    Raises:
        InvalidNameError: when a name is none.
        RpcError: when a type cannot be one, or there are too many.
    """
    if len(types) > EVENT_TYPES_MAX:
        raise invalid(
            "INVALID_FIELD",
            f"{len(types)} types of events; ask for at most {EVENT_TYPES_MAX}, or for `shoal.job.*`",
            field="types",
        )
    for index, wanted in enumerate(types):
        if _EVENT_TYPE.fullmatch(wanted) is None:
            raise invalid(
                "INVALID_FIELD",
                f"types[{index}]: {wanted[:120]!r} is no type of events; write `shoal.job.failed`, or `shoal.job.*` "
                "for all that begin so",
                field="types",
            )
    place = namespace_of(namespace)
    pipeline = parse_pipeline(name, place).pipeline if name else ""
    return EventQuery(place, pipeline, not bound, tuple(types))
