"""The fields that many requests have, read and checked."""

from collections.abc import Iterable

from control.front.read_model import PAGE_SIZE
from control.front.rpc_status import invalid
from shoal.model import PipelineState
from shoal.names import DEFAULT_NAMESPACE, JobRef, PipelineRef, check_id, parse_job, parse_pipeline
from shoal.wire.state import PIPELINE_STATE

PAGE_SIZE_MAX = 1000


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
