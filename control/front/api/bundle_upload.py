"""Taking a bundle: a stream of pieces into the archive, checked against what it says it is."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TypeVar

import grpc

from control.front.object_key import bundle_key
from control.front.rpc_status import invalid
from services.archive.object_store import ObjectDigestError, ObjectStore
from services.runtime.rpc import RpcError, rpc_error
from shoal.v1 import pipelines_service_pb2

BUNDLE_BYTES_MAX = 16 * 1024**3
PIECE_BYTES_MAX = 1024 * 1024
IDLE_SECONDS = 60.0

RequestT = TypeVar("RequestT")

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(digest: str, field: str = "digest") -> str:
    """Return `digest` if it is one.

    Raises:
        RpcError: when it is not.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise invalid(
            "INVALID_DIGEST",
            f"{field} {digest[:80]!r} is not a SHA-256: write 64 lower-case hex digits",
            field=field,
        )
    return digest


async def take_bundle(
    store: ObjectStore,
    requests: AsyncIterator[pipelines_service_pb2.UploadBundleRequest],
    *,
    idle_seconds: float = IDLE_SECONDS,
) -> str:
    """Store the bundle that `requests` carry and return its digest.

    Args:
        store: where it is kept.
        requests: its pieces.
        idle_seconds: how long the sender may be silent.

    Raises:
        RpcError: when it is not what its first message says; nothing is stored then.
    """
    requests = in_time(requests, idle_seconds)
    first = await anext(requests, None)
    if first is None:
        raise invalid("BUNDLE_EMPTY", "the stream has no message; the first one says the digest")
    digest = check_digest(first.digest)
    if not 0 < first.size_bytes <= BUNDLE_BYTES_MAX:
        raise invalid(
            "BUNDLE_SIZE",
            f"size_bytes is {first.size_bytes}; a bundle has 1 to {BUNDLE_BYTES_MAX} bytes",
            field="size_bytes",
        )
    try:
        await store.put_stream(bundle_key(digest), _pieces(first, requests), sha256=digest)
    except ObjectDigestError as error:
        raise invalid(
            "BUNDLE_DIGEST",
            f"the bundle was announced as {error.announced}, and what arrived is "
            f"{error.received}; nothing was stored: pack and send it again",
            announced=error.announced,
            received=error.received,
        ) from error
    return digest


async def in_time(
    requests: AsyncIterator[RequestT], idle_seconds: float
) -> AsyncIterator[RequestT]:
    """Pass on what comes, or end the call: a sender that is silent holds a file that is not done."""
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                request = await anext(requests, None)
        except TimeoutError:
            raise rpc_error(
                grpc.StatusCode.UNAVAILABLE,
                "BUNDLE_STALLED",
                f"nothing of the bundle came for {idle_seconds:g} s; it was not stored: send it again",
            ) from None
        if request is None:
            return
        yield request


async def _pieces(
    first: pipelines_service_pb2.UploadBundleRequest,
    requests: AsyncIterator[pipelines_service_pb2.UploadBundleRequest],
) -> AsyncIterator[bytes]:
    size_bytes = first.size_bytes
    received = len(_piece(first))
    if received <= size_bytes:
        yield first.data
        async for request in requests:
            received += len(_piece(request))
            if received > size_bytes:
                break
            yield request.data
    if received != size_bytes:
        raise _wrong_size(size_bytes, received)


def _piece(request: pipelines_service_pb2.UploadBundleRequest) -> bytes:
    if len(request.data) > PIECE_BYTES_MAX:
        raise invalid(
            "BUNDLE_PIECE",
            f"a message has {len(request.data)} bytes of data; send at most {PIECE_BYTES_MAX}",
            field="data",
        )
    return request.data


def _wrong_size(announced: int, received: int) -> RpcError:
    more = "at least " if received > announced else ""
    return invalid(
        "BUNDLE_SIZE",
        f"the bundle was announced with {announced} bytes, and {more}{received} arrived; "
        "nothing was stored",
        field="size_bytes",
    )
