"""Submissions: read one by one, recorded together, answered in order."""

from collections.abc import Sequence

import grpc

from control.core.answers import Refusal, Submission, SubmitResult
from control.core.call_note import CallNote
from control.core.errors import ControlError
from control.front.api.picture import picture
from control.front.api.request import DEFAULT_NAMESPACE
from control.front.control_plane import ControlPlane
from control.front.rpc_status import invalid, refusal
from control.front.source_rule import SourceRule
from services.runtime.rpc import RpcError, rpc_error
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_pipeline_spec

Outcome = v1.SubmitPipelineResponse | RpcError
"""What becomes of one submission."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def submit(
    plane: ControlPlane,
    rule: SourceRule,
    requests: Sequence[v1.SubmitPipelineRequest],
    note: CallNote | None = None,
) -> Sequence[Outcome]:
    """Record submissions in one go; one that is refused does not touch the others.

    `note` names the caller; None in a cluster without identity.

    Raises:
        ControlError: nothing of it could be recorded.
    """
    read = [_read(request, rule) for request in requests]
    answers = iter(
        await plane.submit(
            [submission for submission in read if isinstance(submission, Submission)], note
        )
    )
    return [one if isinstance(one, RpcError) else _answer(next(answers)) for one in read]


def encode(outcome: Outcome) -> v1.SubmitOutcome:
    """Write an outcome as one of a batch."""
    if isinstance(outcome, RpcError):
        return v1.SubmitOutcome(
            refusal=v1.Refusal(
                code=outcome.code.value[0],
                reason=outcome.reason,
                message=outcome.message,
                metadata=outcome.metadata,
            )
        )
    return v1.SubmitOutcome(response=outcome)


def refused_all(error: ControlError, count: int) -> Sequence[Outcome]:
    """Return the outcomes of a batch that could not be recorded."""
    told = refusal(error)
    return [told or rpc_error(grpc.StatusCode.INTERNAL, "CONTROL", str(error))] * count


def _read(request: v1.SubmitPipelineRequest, rule: SourceRule) -> Submission | RpcError:
    namespace = request.namespace or DEFAULT_NAMESPACE
    try:
        spec = decode_pipeline_spec(request.spec, "spec")
    except WireError as error:
        return invalid("INVALID_SPEC", str(error), **{error.path: error.problem})
    problem = rule.problem(namespace, spec)
    if problem is not None:
        path, why = problem
        return invalid("INVALID_SOURCE", f"{path}: {why}", **{path: why})
    data = request.spec.SerializeToString(deterministic=True)
    return Submission(namespace, request.request_id, spec, data)


def _answer(answer: SubmitResult | Refusal) -> Outcome:
    match answer:
        case SubmitResult(view, repeated):
            return v1.SubmitPipelineResponse(pipeline=picture(view), repeated_request=repeated)
        case Refusal():
            return refused(answer)


def refused(answer: Refusal) -> RpcError:
    """Return the error with which a refused request ends."""
    return rpc_error(_CODES[int(answer.code)], answer.reason, answer.message, answer.metadata)
