"""Errors that a controller answers with, or that keep its answer away."""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from shoal.redaction import redacted

_NOTHING: Mapping[str, str] = MappingProxyType({})


class ShoalError(Exception):
    """A request that failed.

    Attributes:
        reason: upper-case word for programs, such as `UNKNOWN_PIPELINE`.
        message: one sentence for people: the thing, the value and the remedy.
        metadata: details by name.
        code: name of the google.rpc.Code, such as `NOT_FOUND`.
        retry_seconds: how long to wait before the same is asked again; 0 if nothing was said of that.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        metadata: Mapping[str, str] = _NOTHING,
        code: str = "UNKNOWN",
        retry_seconds: float = 0.0,
    ) -> None:
        self.message = redacted(message)
        super().__init__(self.message)
        self.reason = reason
        self.metadata = MappingProxyType(dict(metadata))
        self.code = code
        self.retry_seconds = retry_seconds


class ControllerUnreachableError(ShoalError):
    """No controller answers at the address."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            "UNREACHABLE",
            f"no controller answers at {address} ({why}); start one with `shoal up`, or name "
            "another with --controller HOST:PORT or SHOAL_CONTROLLER",
            {"address": address},
            "UNAVAILABLE",
        )


class HandshakeError(ShoalError):
    """A controller and its client do not believe the identity of one of them; trying again does not help."""

    def __init__(self, message: str) -> None:
        super().__init__("HANDSHAKE", message, code="UNAUTHENTICATED")


class TooLateError(ShoalError):
    """Something did not happen within its deadline."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(
            "DEADLINE_EXCEEDED",
            f"{what} within {seconds:g} s; try again, or allow it more time",
            {"seconds": f"{seconds:g}"},
            "DEADLINE_EXCEEDED",
        )


class DownloadError(ShoalError):
    """An artifact could not be fetched, or is not what its manifest says."""

    def __init__(self, message: str) -> None:
        super().__init__("DOWNLOAD", message, code="DATA_LOSS")


def from_status(code: str, details: str, status: bytes | None) -> ShoalError:
    """Read the error of a call.

    Args:
        code: name of its gRPC status.
        details: its text, which stands in when there is nothing better.
        status: the serialized google.rpc.Status of `grpc-status-details-bin`, if there was one.
    """
    if status is not None:
        message = status_pb2.Status()
        try:
            message.ParseFromString(status)
            retry_seconds = _retry_seconds(message)
            for item in message.details:
                info = error_details_pb2.ErrorInfo()
                if item.Unpack(info):
                    text = message.message or details
                    return ShoalError(info.reason, text, dict(info.metadata), code, retry_seconds)
        except DecodeError:
            pass  # a broken trailer must not hide the error that it decorates
    return ShoalError(code, details or f"the controller answered {code}", code=code)


def _retry_seconds(status: status_pb2.Status) -> float:
    for item in status.details:
        retry = error_details_pb2.RetryInfo()
        if item.Unpack(retry):
            delay = retry.retry_delay
            return max(0.0, float(delay.seconds) + float(delay.nanos) / 1e9)
    return 0.0


def code_name(number: int) -> str:
    """Name a google.rpc.Code: 6 is `ALREADY_EXISTS`."""
    try:
        return str(code_pb2.Code.Name(number))
    except ValueError:
        return "UNKNOWN"
