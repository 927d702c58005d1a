"""What every gRPC server of ours has in common; `shoal.channel` has what channels have.

Sources: grpc/doc/keepalive.md and grpc/include/grpc/impl/channel_arg_names.h (gRPC core), AIP-193
(errors), google/rpc/error_details.proto.
"""

import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, Protocol, TypeAlias, cast

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from shoal.channel import MESSAGE_BYTES_MAX, Keepalive, Options, common_options
from shoal.credentials import Credentials
from shoal.redaction import redacted

DOMAIN = "shoal"
STATUS_DETAILS = "grpc-status-details-bin"

STREAM_MESSAGE_BYTES_MAX = 2 * 1024 * 1024
"""Largest message between stream workers.

Larger records travel in parts (services/streams/part.py), so a peer that announces more is refused
before the bytes are there, and nothing of another lane waits behind a message of 256 MiB.
"""

MESSAGE_BYTES = 1_200
METADATA_BYTES = 2_400
"""Most of an error's message, and of its details together: both travel twice, once of them as
base64, in trailers of which a peer takes 8 KiB at most, or the whole error is lost."""

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Method: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Behavior = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]


def server_options(keepalive: Keepalive, *, message_bytes_max: int = MESSAGE_BYTES_MAX) -> Options:
    """Return the options of a server; it permits the pings of every preset here."""
    return [
        *common_options(keepalive, message_bytes_max),
        # A stranger that begins a handshake and says nothing more holds a descriptor for so long.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Or a second process could take the same port and get half of the calls.
        ("grpc.so_reuseport", 0),
        # gRPC's own limit, one ping in 5 min without data, would cut our clients off.
        ("grpc.http2.min_ping_interval_without_data_ms", 50),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def bind(
    server: grpc.aio.Server, address: str, identity: Callable[[], Credentials] | None = None
) -> int:
    """Let `server` listen on `address` (`host:port`, port 0 for a free one).

    Args:
        server: not started yet.
        address: where it listens.
        identity: returns what the server proves, anew at each handshake, so that a renewal needs no
            restart; a caller has to prove one of the same authorities. None for a port in the clear.

    Returns:
        The port that it got.

    Raises:
        OSError: when the address cannot be had.
    """
    try:
        if identity is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _dynamic(identity))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}; is the address in use?") from error
    if port == 0 and not address.startswith("unix:"):
        raise OSError(f"cannot listen on {address}; is the address in use?")
    return port


def _dynamic(identity: Callable[[], Credentials]) -> grpc.ServerCredentials:
    """Return credentials of which gRPC asks again at each handshake, on a thread of its own.

    gRPC takes a new configuration under a lock, but begins a handshake with the one it has after it
    has left the lock: where each handshake brought a new one, another thread let go of it in between,
    and the process aborted ("Check failed: prior > 0", about once in a thousand connections that were
    broken off). So it is told of a change alone; asked for it is under its lock, one thread at a time.
    """
    told = identity()

    def changed() -> Any:
        nonlocal told
        now = identity()
        if now == told:
            return None  # gRPC goes on with what it has
        told = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(told), changed, require_client_authentication=True
    )


def _configuration(now: Credentials) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(now.key, now.certificate)], root_certificates=now.authorities
    )


class RpcError(Exception):
    """A call that is refused or has failed, with everything that its caller will see.

    Raise it anywhere beneath a server with `ErrorInterceptor`, or hand it to `abort`. `retry_seconds` is how long
    its caller should wait before it makes the call again; 0 says nothing of that.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        retry_seconds: float = 0.0,
    ) -> None:
        message = _cut(message, MESSAGE_BYTES)
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = _within(metadata or {}, METADATA_BYTES)
        self.retry_seconds = retry_seconds

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return the `google.rpc.Status` as trailing metadata, with its `ErrorInfo` and perhaps `RetryInfo`."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        status.details.add().Pack(
            error_details_pb2.ErrorInfo(
                reason=self.reason, domain=DOMAIN, metadata=dict(self.metadata)
            )
        )
        if self.retry_seconds:
            status.details.add().Pack(retry_info(self.retry_seconds))
        return ((STATUS_DETAILS, status.SerializeToString()),)


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    """Return the detail that says when to try again, in whole milliseconds, rounded up."""
    told = error_details_pb2.RetryInfo()
    told.retry_delay.FromMilliseconds(math.ceil(seconds * 1000))
    return told


def _cut(text: str, most: int) -> str:
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data.decode()
    mark = " … "
    half = (most - len(mark.encode())) // 2
    head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{head}{mark}{tail}"


def _within(metadata: Mapping[str, str], most: int) -> dict[str, str]:
    """The first details that fit; what names the thing comes first."""
    kept: dict[str, str] = {}
    for key, value in metadata.items():
        most -= len(key.encode("utf-8", "replace")) + len(value.encode("utf-8", "replace")) + 8
        if most < 0:
            break
        kept[key] = value
    return kept


def rpc_error(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    metadata: Mapping[str, str] | None = None,
    retry_seconds: float = 0.0,
) -> RpcError:
    """Return the error to raise in a call.

    Args:
        code: gRPC's status, anything but OK.
        reason: what went wrong, in UPPER_SNAKE_CASE; programs decide by it.
        message: for people: names the thing, the value and the remedy.
        metadata: what programs want to know beyond the reason, such as `{"job": "…"}`.
        retry_seconds: how long to wait before the call is made again; 0 if that is not known.

    Raises:
        ValueError: for the code OK, which is no error.
    """
    if code is grpc.StatusCode.OK:
        raise ValueError(f"OK is not an error (reason {reason}): choose another status code")
    return RpcError(code, reason, redacted(message), metadata, retry_seconds)


class AbortableCall(Protocol):
    """A call as its server holds it, of which only the end matters here."""

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any, /) -> Any:
        """End the call with an error; does not return."""
        ...


async def abort(context: AbortableCall, error: RpcError) -> NoReturn:
    """End the call of `context` with `error`."""
    await context.abort(error.code, error.message, error.trailing_metadata())
    raise AssertionError("abort() returned")


Refusal = Callable[[Exception], RpcError | None]
"""Returns what a caller is told about an error; None for one that is a mistake of ours."""


def _told(error: Exception) -> RpcError | None:
    return error if isinstance(error, RpcError) else None


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends a call with what `refusal` makes of the error that its implementation raised.

    Anything else that is raised stays gRPC's UNKNOWN, and gRPC logs it.

    Args:
        refusal: returns the error of a call for what was raised, by default for an `RpcError` alone.
    """

    def __init__(self, refusal: Refusal = _told) -> None:
        self._refusal = refusal

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Method]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Method:
        """Wrap the implementation of one method, whichever of gRPC's four kinds it is."""
        method = cast("Any", await continuation(handler_call_details))
        if method is None:  # it is not implemented; gRPC answers by itself
            return None
        kind = next(kind for kind in KINDS if getattr(method, kind) is not None)
        behavior = _ending_well(getattr(method, kind), self._refusal)
        return cast("Method", method._replace(**{kind: behavior}))


def _ending_well(behavior: Behavior, refusal: Refusal) -> Behavior:
    async def end(error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        told = refusal(error)
        if told is None:
            raise error
        await abort(context, told)

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behavior(request, context)
        except Exception as error:  # noqa: BLE001 -- raised again, or the end of the call
            await end(error, context)

    async def show(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in behavior(request, context):
                yield response
        except Exception as error:  # noqa: BLE001 -- raised again, or the end of the call
            await end(error, context)

    # gRPC looks at the kind of function to know whether it yields or calls write(): keep the kind.
    return show if inspect.isasyncgenfunction(behavior) else answer
