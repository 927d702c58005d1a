"""The fields that many requests have, read and checked."""

from collections.abc import Iterable

from control.front.rpc_status import invalid
from shoal.model import PipelineState
from shoal.names import JobRef, PipelineRef, check_id, parse_job, parse_pipeline
from shoal.wire.state import decode_pipeline_state

DEFAULT_NAMESPACE = "default"
PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
PAGE_TOKEN_CHARACTERS_MAX = 256
COUNT_DIGITS_MAX = 12


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
            f"page_size is {value}; use 0 for {PAGE_SIZE_DEFAULT}, or up to {PAGE_SIZE_MAX}",
            field="page_size",
        )
    return min(value or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def page_token_of(value: str) -> str:
    """Return the token.

    Raises:
        RpcError: when it is longer than any of ours.
    """
    if len(value) > PAGE_TOKEN_CHARACTERS_MAX:
        raise invalid(
            "INVALID_PAGE_TOKEN",
            f"the page token has {len(value)} characters and is none of ours; "
            "use the one of the last answer, unchanged",
            field="page_token",
        )
    return value


def states_of(values: Iterable[int]) -> frozenset[PipelineState]:
    """Return the states that are asked for; none means all.

    Raises:
        WireError: when one of them is not known.
    """
    return frozenset(
        decode_pipeline_state(value, f"states[{index}]") for index, value in enumerate(values)
    )


def first_of(token: str) -> int:
    """Return how many items are known already, of a list that is counted.

    Raises:
        RpcError: when the token is from nowhere.
    """
    if not token:
        return 0
    if not (token.isascii() and token.isdigit()) or len(token) > COUNT_DIGITS_MAX:
        raise invalid(
            "INVALID_PAGE_TOKEN",
            f"page token {token!r} is none of ours: use the one of the last answer, unchanged",
            field="page_token",
        )
    return int(token)
