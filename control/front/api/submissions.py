"""Submissions: read one by one, recorded together, answered in order."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc

from control.core import admission
from control.core.answers import Refusal, RefusalCode, Submission, SubmitResult
from control.core.call_note import CallNote
from control.core.errors import ControlError
from control.front.api.picture import picture_given
from control.front.control_plane import ControlPlane
from control.front.folder_listings import FolderInputError, FolderListings
from control.front.rpc_status import invalid, refusal
from control.front.source_rule import SourceRule
from services.archive.object_store import ArchiveError
from services.runtime.rpc import RpcError, rpc_error
from shoal.names import DEFAULT_NAMESPACE
from shoal.trace_context import TraceContextError, parse_traceparent
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.wire.fields import WireError
from shoal.wire.known_specs import decode_spec_bytes

Outcome = dict[str, Any] | RpcError
"""What becomes of one submission: what a `SubmitPipelineResponse` is given, or the error."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def submit(
    plane: ControlPlane,
    rule: SourceRule,
    listings: FolderListings,
    requests: Sequence[v1.SubmitPipelineRequest],
    note: CallNote | None = None,
    recorded: Callable[[], None] = lambda: None,
) -> Sequence[Outcome]:
    """Record submissions in one go; one that is refused does not touch the others.

    Those with folder inputs follow in another go, once their files are found; the others do not
    wait for that. `note` names the caller; None in a cluster without identity. `recorded` is called
    once all is recorded that does not wait for files, or cannot be.

    Raises:
        ControlError: nothing of it could be recorded.
    """
    read = [_read(request, rule) for request in requests]
    return await record(plane, listings, read, note, recorded)


async def record(
    plane: ControlPlane,
    listings: FolderListings,
    read: Sequence[Submission | RpcError],
    note: CallNote | None = None,
    recorded: Callable[[], None] = lambda: None,
) -> Sequence[Outcome]:
    """Record what was read in one go, as `submit` does; what is refused already stays so.

    Raises:
        ControlError: nothing of it could be recorded.
    """
    outcomes: dict[int, Outcome] = {}
    ready: dict[int, Submission] = {}
    late: dict[int, Submission] = {}
    for index, one in enumerate(read):
        match one:
            case RpcError():
                outcomes[index] = one
            case Submission() if any(job.folders for job in one.spec.jobs):
                late[index] = one
            case Submission():
                ready[index] = one

    async def keep(submissions: Mapping[int, Submission]) -> None:
        if submissions:
            answers = await plane.submit(list(submissions.values()), note)
            outcomes.update(zip(submissions, map(_answer, answers), strict=True))

    async with asyncio.TaskGroup() as tasks:
        pinning = [tasks.create_task(_pinned(one, listings)) for one in late.values()]
        failed: ControlError | None = None
        try:
            await keep(ready)
        except ControlError as error:
            failed = error
            for task in pinning:
                task.cancel()
        finally:
            recorded()
    if failed is not None:
        raise failed
    await keep(dict(zip(late, (task.result() for task in pinning), strict=True)))
    return [outcomes[index] for index in range(len(read))]


async def _pinned(submission: Submission, listings: FolderListings) -> Submission:
    """Find the files of its folder inputs; why they cannot be found is told once it is recorded.

    Not before: a request that was made before is answered with the pipeline that it made.
    """
    if admission.refusal(submission) is not None:
        return submission
    try:
        found = await listings.pin(submission.namespace, submission.spec)
    except FolderInputError as error:
        refused = Refusal(
            RefusalCode.INVALID_ARGUMENT,
            "INVALID_SOURCE",
            f"{error.path}: {error}",
            {error.path: str(error)},
        )
        return replace(submission, refused=refused)
    except ArchiveError as error:
        refused = Refusal(RefusalCode.UNAVAILABLE, "SOURCE_UNAVAILABLE", str(error))
        return replace(submission, refused=refused)
    return replace(submission, listings=found)


def outcome_given(outcome: Outcome) -> Any:
    """Return what a `SubmitOutcome` of a batch is given."""
    if isinstance(outcome, RpcError):
        return {
            "refusal": {
                "code": outcome.code.value[0],
                "reason": outcome.reason,
                "message": outcome.message,
                "metadata": outcome.metadata,
            }
        }
    return {"response": outcome}


def refused_all(error: ControlError, count: int) -> Sequence[Outcome]:
    """Return the outcomes of a batch that could not be recorded."""
    told = refusal(error)
    return [told or rpc_error(grpc.StatusCode.INTERNAL, "CONTROL", str(error))] * count


def _read(request: v1.SubmitPipelineRequest, rule: SourceRule) -> Submission | RpcError:
    namespace = request.namespace or DEFAULT_NAMESPACE
    data = request.spec.SerializeToString(deterministic=True)
    try:
        spec = decode_spec_bytes(data, request.spec, "spec")
    except WireError as error:
        return invalid("INVALID_SPEC", str(error), **{error.path: error.problem})
    try:
        # As it is kept: one of a later version may say more.
        within = str(parse_traceparent(request.traceparent)) if request.traceparent else ""
    except TraceContextError as error:
        return invalid("INVALID_TRACEPARENT", f"traceparent: {error}", field="traceparent")
    submission = Submission(namespace, request.request_id, spec, data, traceparent=within)
    return allowed(submission, rule)


def allowed(submission: Submission, rule: SourceRule) -> Submission | RpcError:
    """Return a submission if its sources may be read; else why not."""
    problem = rule.problem(submission.namespace, submission.spec)
    if problem is None:
        return submission
    path, why = problem
    return invalid("INVALID_SOURCE", f"{path}: {why}", **{path: why})


def _answer(answer: SubmitResult | Refusal) -> Outcome:
    match answer:
        case SubmitResult(view, repeated):
            return {"pipeline": picture_given(view), "repeated_request": repeated}
        case Refusal():
            return refused(answer)


def refused(answer: Refusal) -> RpcError:
    """Return the error with which a refused request ends."""
    return rpc_error(_CODES[int(answer.code)], answer.reason, answer.message, answer.metadata)
