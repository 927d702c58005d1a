"""How a caller is told that a call failed, in each protocol that it may speak."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from google.rpc import error_details_pb2
from protobuf.wkt import Any as PackedMessage
from starlette.responses import JSONResponse

from services.runtime.rpc import DOMAIN, retry_info
from shoal.errors import ShoalError

_INFO_URL: Final = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_URL: Final = "type.googleapis.com/google.rpc.RetryInfo"
_STATUS: Final[Mapping[str, HTTPStatus]] = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST,
    "OUT_OF_RANGE": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "ABORTED": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
}
"""As the protocol Connect maps codes to HTTP (the reference of Connect, "Error codes"); 500 for all others."""


def connect_error(error: ShoalError) -> ConnectError:
    """Return the error of a call of the contract: its reason is ErrorInfo, and when to call again is RetryInfo."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata)
    )
    details = [ErrorDetail(PackedMessage(type_url=_INFO_URL, value=info.SerializeToString()))]
    if error.retry_seconds:
        told = retry_info(error.retry_seconds).SerializeToString()
        details.append(ErrorDetail(PackedMessage(type_url=_RETRY_URL, value=told)))
    code = Code.__members__.get(_connect_name(error.code), Code.UNKNOWN)
    return ConnectError(code, error.message, details)


def json_error(error: ShoalError) -> JSONResponse:
    """Return the answer of a request of HTTP that failed, in the shape of Connect's errors."""
    name = _connect_name(error.code).lower()
    body = {"code": name, "message": error.message, "reason": error.reason}
    status = _STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {"www-authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}
    if error.retry_seconds:
        headers["retry-after"] = str(math.ceil(error.retry_seconds))
    return JSONResponse(body, status, headers)


def _connect_name(code: str) -> str:
    return "CANCELED" if code == "CANCELLED" else code
