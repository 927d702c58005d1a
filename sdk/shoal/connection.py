"""One channel to a controller: calls with deadlines, retries after a cut, errors of ours.

Sources: grpc/doc/keepalive.md, grpc/doc/wait-for-ready.md; the rules for grpc.aio are those of
docs/architecture.md: `read()` and `write()` only, and never a timeout around `read()`.
"""

import asyncio
import datetime as dt
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import grpc
import grpc.aio

from shoal.backoff import Backoff
from shoal.channel import USER, channel_options, open_channel
from shoal.errors import (
    ControllerUnreachableError,
    HandshakeError,
    ShoalError,
    TooLateError,
    from_status,
)
from shoal.handshake_failure import explain_handshake
from shoal.protocol_version import API, as_text
from shoal.version import VERSION
from shoal.wire.fields import WireError

if TYPE_CHECKING:
    from shoal.credentials import Credentials

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)
ValueT = TypeVar("ValueT")

_STATUS_DETAILS = "grpc-status-details-bin"
_RETRY = Backoff(0.05, 1.0, jitter=0.5)
_NAMELESS_SECONDS = 10.0
_QUOTA_SECONDS = (
    2.0  # so that calls of this second are over; what else is too much does not pass by itself
)
_CONNECTED_SECONDS = 5.0  # longer than an attempt to connect may last
# Codes after which a call may be made again: no server was there, or a server ended under it.
_CALL_MAY_RETURN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

# Codes after which a stream may be dialled again: the controller went away, or cut a slow watcher.
_STREAM_MAY_RETURN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}


class Unary(Protocol[RequestT_contra, ResponseT_co]):
    """A method of a stub that is answered once."""

    def __call__(
        self, request: RequestT_contra, /, *, timeout: float | None = None
    ) -> Awaitable[ResponseT_co]:
        """Make the call."""
        ...


class Pause:
    """Waits a little longer after each failure in a row, and not as long as other clients do."""

    def __init__(self) -> None:
        self.reset()

    @property
    def seconds(self) -> float:
        """How long the next pause is."""
        return _RETRY.delay_seconds(self._failures, self._chance)

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._failures, self._chance = 1, random.random()

    async def wait(self) -> None:
        """Pause; the next pause is longer."""
        await asyncio.sleep(self.seconds)
        self._failures, self._chance = self._failures + 1, random.random()


class Connection:
    """A channel to the controller at `address` and how failures on it are met.

    A call fails at once while no answer ever came from the address (it is likely wrong); after the
    first answer, a controller that is away for a moment is waited for.

    Args:
        address: `host:port`.
        deadline_seconds: how long a call may take with all its retries.
        patience_seconds: how long a stream may stay cut before it is given up.
        credentials: what is proved to the controller, and the authorities that are believed; None for
            a controller with --insecure.
    """

    def __init__(
        self,
        address: str,
        *,
        deadline_seconds: float = 30.0,
        patience_seconds: float = 120.0,
        credentials: "Credentials | None" = None,
    ) -> None:
        self.address = address
        self.credentials = credentials
        self.deadline_seconds = deadline_seconds
        self.patience_seconds = patience_seconds
        said = as_text(API.said_by(VERSION))
        options = [*channel_options(USER), ("grpc.primary_user_agent", said)]
        self.channel = open_channel(address, options, credentials)
        self.answered = False

    async def call(
        self,
        method: Unary[RequestT, ResponseT],
        request: RequestT,
        *,
        deadline_seconds: float | None = None,
    ) -> ResponseT:
        """Make one idempotent call; beyond the caller's quota, it is made once it may be, if there is time.

        Raises:
            ShoalError: the controller refused, did not answer in time or cannot be reached.
        """
        clock = asyncio.get_running_loop().time
        allowed = self.deadline_seconds if deadline_seconds is None else deadline_seconds
        give_up = clock() + allowed
        pause = Pause()
        while True:
            try:
                response = await method(request, timeout=max(0.001, give_up - clock()))
            except grpc.aio.AioRpcError as error:
                away = error.code() in _CALL_MAY_RETURN
                told = self.error(error, allowed)
                # Others were told the same moment, so it is a little later.
                rest = told.retry_seconds + pause.seconds if told.retry_seconds else 0.0
                if rest and clock() + rest < give_up:
                    await asyncio.sleep(rest)
                elif self.answered and away and clock() + pause.seconds < give_up:
                    await pause.wait()
                else:
                    raise told from error
            else:
                self.answered = True
                return response

    async def stream(
        self,
        method: Callable[[Any], Any],
        request: Callable[[], object],
        *,
        endless: bool,
    ) -> AsyncGenerator[Any, None]:
        """Read a stream of answers, dialling again after a cut.

        Args:
            method: the method of a stub.
            request: makes the request anew for each dialling, so that it says where to go on.
            endless: whether the end of the stream is a cut too.

        Raises:
            ShoalError: the controller refused, or stayed away for longer than the patience.
        """
        clock = asyncio.get_running_loop().time
        cut_at: float | None = None
        pause = Pause()
        while True:
            dialled_at = clock()
            call = method(request())
            try:
                while True:
                    response = await call.read()
                    if response is grpc.aio.EOF:
                        break
                    self.answered = True
                    yield response
                    cut_at = None
                    pause.reset()
                code = await call.code()
                if code is grpc.StatusCode.OK and not endless:
                    return
            except grpc.aio.AioRpcError as error:
                if clock() - dialled_at > _CONNECTED_SECONDS:  # it stood, and nothing happened
                    cut_at = None
                cut_at = clock() if cut_at is None else cut_at
                waited = clock() - cut_at
                if not self.answered or waited >= self._patience(error):
                    raise self.error(error, waited) from error
            finally:
                call.cancel()
            await pause.wait()

    def _patience(self, error: grpc.aio.AioRpcError) -> float:
        """Say how long a stream that broke like this may stay away, in seconds."""
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            told = from_status(error.code().name, error.details() or "", _status(error))
            if told.reason == "QUOTA":
                return min(self.patience_seconds, _QUOTA_SECONDS)
        if error.code() in _STREAM_MAY_RETURN:
            return self.patience_seconds
        # A server that is shutting down may break its streams without a reason of its own.
        nameless = error.code() is grpc.StatusCode.UNKNOWN and _status(error) is None
        return min(self.patience_seconds, _NAMELESS_SECONDS) if nameless else 0.0

    def error(self, error: grpc.aio.AioRpcError, seconds: float) -> ShoalError:
        """Translate gRPC's error; `seconds` is how long was waited."""
        code = error.code()
        status = _status(error)
        details = error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE and status is None:
            now = dt.datetime.now(dt.UTC)
            told = explain_handshake(details, self.address, self.credentials, now)
            if told and not self.answered:
                return HandshakeError(told)
            return ControllerUnreachableError(self.address, _plain(details))
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and status is None:
            return TooLateError(f"the controller at {self.address} did not answer", seconds)
        if code is grpc.StatusCode.UNIMPLEMENTED and status is None:
            return ShoalError(
                "UNIMPLEMENTED",
                f"the controller at {self.address} does not know this request "
                f"({details}); is its version as new as this one?",
                code=code.name,
            )
        return from_status(code.name, details, status)


def decoded(decode: Callable[[ResponseT], ValueT], message: ResponseT) -> ValueT:
    """Read what the controller sent.

    Raises:
        ShoalError: it breaks the contract; versions that differ are the likely cause.
    """
    try:
        return decode(message)
    except WireError as error:
        raise ShoalError(
            "WIRE",
            f"the controller's answer cannot be read ({error}); is its version the same as this?",
            code="INTERNAL",
        ) from error


def _status(error: grpc.aio.AioRpcError) -> bytes | None:
    trailers = cast("Any", error.trailing_metadata()) or ()
    for key, value in trailers:
        if key == _STATUS_DETAILS and isinstance(value, bytes):
            return value
    return None


def _plain(details: str) -> str:
    """Shorten gRPC's text to what went wrong."""
    return details.rsplit(": ", 1)[-1].lower().rstrip("]} ") or "no answer"
