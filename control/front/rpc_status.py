"""What a caller is told: every error of ours as a gRPC status with a reason."""

from collections.abc import Mapping

import grpc

from control.core import errors
from services.archive.key import InvalidKeyError
from services.archive.object_store import (
    ArchiveFullError,
    ArchiveUnavailableError,
    ObjectMissingError,
)
from services.runtime.rpc import RpcError, rpc_error
from shoal.names import InvalidNameError
from shoal.wire.fields import WireError

_CONTROL: Mapping[type[errors.ControlError], tuple[grpc.StatusCode, str]] = {
    errors.UnknownPipelineError: (grpc.StatusCode.NOT_FOUND, "UNKNOWN_PIPELINE"),
    errors.UnknownJobError: (grpc.StatusCode.NOT_FOUND, "UNKNOWN_JOB"),
    errors.UnknownPortError: (grpc.StatusCode.NOT_FOUND, "UNKNOWN_PORT"),
    errors.UnknownNodeError: (grpc.StatusCode.NOT_FOUND, "UNKNOWN_NODE"),
    errors.NameTakenError: (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN"),
    errors.NotQuarantinedError: (grpc.StatusCode.FAILED_PRECONDITION, "NOT_QUARANTINED"),
    errors.NodeNotGoneError: (grpc.StatusCode.FAILED_PRECONDITION, "NODE_NOT_GONE"),
    errors.RevokedError: (grpc.StatusCode.PERMISSION_DENIED, "REVOKED"),
    errors.HelloRefusedError: (grpc.StatusCode.FAILED_PRECONDITION, "HELLO_REFUSED"),
    errors.UnknownSequenceError: (grpc.StatusCode.OUT_OF_RANGE, "UNKNOWN_SEQUENCE"),
    # These may be tried again: the client dials anew where it was.
    errors.SessionEndedError: (grpc.StatusCode.ABORTED, "SESSION_ENDED"),
    errors.WatcherTooSlowError: (grpc.StatusCode.ABORTED, "WATCHER_TOO_SLOW"),
    errors.StoreFullError: (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"),
    errors.StoreFailedError: (grpc.StatusCode.UNAVAILABLE, "STORE_FAILED"),
    errors.RebuildingError: (grpc.StatusCode.UNAVAILABLE, "REBUILDING"),
    errors.TermOverError: (grpc.StatusCode.UNAVAILABLE, "TERM_OVER"),
    errors.ClosingError: (grpc.StatusCode.UNAVAILABLE, "CLOSING"),
    errors.InternalError: (grpc.StatusCode.INTERNAL, "INTERNAL"),
    errors.RowError: (grpc.StatusCode.INTERNAL, "INTERNAL"),
}


def invalid(reason: str, message: str, /, **metadata: str) -> RpcError:
    """Return the error for a request that will never be right."""
    return rpc_error(grpc.StatusCode.INVALID_ARGUMENT, reason, message, metadata)


def refusal(error: Exception) -> RpcError | None:
    """Return what a caller is told about an error of ours; None for anything else.

    Of several errors at once, the first that is ours counts; the others came of it.
    """
    match error:
        case ExceptionGroup():
            found = (refusal(one) for one in error.exceptions)
            return next((one for one in found if one is not None), None)
        case RpcError():
            return error
        case errors.PageTokenError():
            return invalid("INVALID_PAGE_TOKEN", str(error), field="page_token")
        case errors.ResumeTokenError():
            return invalid("INVALID_RESUME_TOKEN", str(error), field="resume_token")
        case errors.ControlError():
            code, reason = _CONTROL.get(type(error), (grpc.StatusCode.INTERNAL, "CONTROL"))
            return rpc_error(code, reason, str(error))
        case WireError():
            return invalid("INVALID_FIELD", str(error), field=error.path)
        case InvalidNameError():
            return invalid("INVALID_NAME", str(error))
        case InvalidKeyError():
            return invalid("INVALID_KEY", str(error))
        case ObjectMissingError():
            return rpc_error(
                grpc.StatusCode.NOT_FOUND, "UNKNOWN_OBJECT", str(error), {"key": error.key}
            )
        case ArchiveFullError():
            return rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "ARCHIVE_FULL", str(error))
        case ArchiveUnavailableError():
            return rpc_error(grpc.StatusCode.UNAVAILABLE, "ARCHIVE_UNAVAILABLE", str(error))
        case _:
            return None
