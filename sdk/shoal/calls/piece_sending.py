"""Sending a bundle in pieces: ask which are missing, send those, and ask again after a cut."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio

from shoal.bundle import PackedBundle
from shoal.pieces import Piece, placed, write_pieces
from shoal.v1 import pipelines_service_pb2 as v1

_CHUNK_BYTES: Final = 1024 * 1024


async def write_or_cut(call: Any, request: object) -> None:
    """Write to a stream; what breaks under a write is a cut, after which the call may be made again.

    Raises:
        AioRpcError: the call is over; UNAVAILABLE where gRPC says INTERNAL of a connection that broke.
    """
    try:
        await call.write(request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INTERNAL or error.trailing_metadata():
            raise
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE,
            error.initial_metadata(),
            error.trailing_metadata(),
            "the connection was cut",
        ) from error


@dataclass(frozen=True, slots=True)
class PieceSending:
    """Sends the pieces of one bundle; `pieces` are all of them, in order, and `stub` that of the service."""

    stub: Any
    namespace: str
    bundle: PackedBundle
    pieces: Sequence[Piece]

    async def send(
        self,
        _request: None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as the methods of a stub call it
    ) -> None:
        """Send what is missing; after a cut, call it again."""
        written = write_pieces(self.pieces)
        digest = self.bundle.digest
        answer = await self.stub.FindMissingPieces(
            v1.FindMissingPiecesRequest(namespace=self.namespace, digest=digest, pieces=written),
            timeout=timeout,
        )
        sent = [number for number in answer.missing if number < len(self.pieces)]
        call: Any = self.stub.UploadPieces(timeout=timeout)
        try:
            # When the call has ended early, its own status says why.
            with contextlib.suppress(asyncio.InvalidStateError):
                await write_or_cut(
                    call,
                    v1.UploadPiecesRequest(
                        namespace=self.namespace, digest=digest, pieces=written, sent=sent
                    ),
                )
                chunks = self._chunks(sent)
                while data := await asyncio.to_thread(next, chunks, b""):
                    await write_or_cut(call, v1.UploadPiecesRequest(data=data))
                await call.done_writing()
            await call
        finally:
            call.cancel()

    def _chunks(self, sent: Sequence[int]) -> Iterator[bytes]:
        """Read pieces, one after the other, so many bytes at a time as a message may have."""
        where = list(placed(self.pieces))
        chunk = bytearray()
        with self.bundle.path.open("rb") as file:
            for number in sent:
                file.seek(where[number].begin)
                left = self.pieces[number].size_bytes
                while left:
                    data = file.read(min(left, _CHUNK_BYTES - len(chunk)))
                    if not data:
                        return
                    chunk += data
                    left -= len(data)
                    if len(chunk) == _CHUNK_BYTES:
                        yield bytes(chunk)
                        chunk.clear()
        if chunk:
            yield bytes(chunk)
