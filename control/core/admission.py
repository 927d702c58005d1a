"""What is decided about a submission before it is taken, and how two submissions differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, cast

from control.core.answers import Refusal, RefusalCode, Submission
from shoal.check import check_pipeline
from shoal.names import InvalidNameError, PipelineRef, check_id
from shoal.spec import Pipeline
from shoal.wire.known_specs import made_of_spec

PROBLEMS_MAX = 20
"""Most problems that an answer carries: it travels in the trailers of a call."""

REQUEST_ID_MAX = 256
"""Longest idempotency key in characters."""


def refusal(submission: Submission) -> Refusal | None:
    """Return why a submission cannot be taken, with the path of every problem, or None."""
    if len(submission.request_id) > REQUEST_ID_MAX:
        return Refusal(
            RefusalCode.INVALID_ARGUMENT,
            "INVALID_REQUEST_ID",
            f"the request id has {len(submission.request_id)} characters: use {REQUEST_ID_MAX} "
            "at most, a random one is best",
        )
    try:
        check_id("namespace", submission.namespace)
    except InvalidNameError as error:
        return Refusal(RefusalCode.INVALID_ARGUMENT, "INVALID_NAMESPACE", str(error))
    problems = made_of_spec(submission.spec, check_pipeline)
    first = next(iter(problems), None)
    if first is None:
        return None
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Refusal(
        RefusalCode.INVALID_ARGUMENT,
        "INVALID_SPEC",
        f"pipeline {submission.spec.name!r} cannot run: {first}{more}",
        {".".join(problem.path): problem.message for problem in problems[:PROBLEMS_MAX]},
    )


def reused(submission: Submission, first: PipelineRef, spec: Pipeline | None) -> Refusal:
    """Refuse a key that was used for another spec, and say what differs if that is still known."""
    if spec is None:
        return Refusal(
            RefusalCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
            f"request id {submission.request_id!r} was used for {first.name} with another spec, and "
            "that pipeline is forgotten: use a new request id",
            {"pipeline": first.name},
        )
    found = list(difference(spec, submission.spec))
    details = {path: f"{one} -> {other}" for path, one, other in found[:PROBLEMS_MAX]}
    return Refusal(
        RefusalCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
        f"request id {submission.request_id!r} was used for {first.name} with another spec "
        f"({len(found)} values differ, {found[0][0]} first): use a new request id",
        {"pipeline": first.name, **details},
    )


def difference(first: object, second: object, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Compare two specs: yields (path, first, second) for each value that differs."""
    if first == second:
        return
    if type(first) is type(second) and is_dataclass(first):
        for field in fields(first):
            yield from difference(
                getattr(first, field.name),
                getattr(second, field.name),
                f"{path}.{field.name}" if path else field.name,
            )
    elif isinstance(first, tuple) and isinstance(second, tuple):
        one, other = cast("tuple[object, ...]", first), cast("tuple[object, ...]", second)
        for index in range(max(len(one), len(other))):
            yield from difference(
                one[index] if index < len(one) else None,
                other[index] if index < len(other) else None,
                f"{path}[{index}]",
            )
    else:
        yield path, _short(first), _short(second)


_SHORT_MAX = 120


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHORT_MAX else f"{text[:_SHORT_MAX]}…"
