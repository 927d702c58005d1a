"""Uploads in pieces that meet a silent sender, an archive that is away, a disk without room, or an older controller."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
import pytest

from control.front.api.bundle_upload import take_bundle
from control.front.bundles.known_pieces import KnownPieces
from control.front.bundles.piece_uploads import PieceUploads
from control.front.bundles.sent_pieces import SentPieces
from control.front.object_key import bundle_key, pieces_key
from control.front.rpc_status import refusal
from services.archive.object_store import ArchiveUnavailableError
from services.runtime.rpc import ErrorInterceptor, RpcError, bind, server_options
from shoal.bundle import BundleFolder, PackedBundle, pack
from shoal.channel import SESSION
from shoal.client import Client
from shoal.pieces import Piece, read_pieces, write_pieces
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.v1.pipelines_service_pb2_grpc import (
    PipelinesServiceServicer,
    add_PipelinesServiceServicer_to_server,
)
from tests.simulation.mesh.archive import MemoryArchive

DATA = [bytes([number]) * 1000 for number in range(4)]
PIECES = [Piece(hashlib.sha256(data).hexdigest(), len(data)) for data in DATA]
DIGEST = hashlib.sha256(b"".join(DATA)).hexdigest()
FIRST = v1.UploadPiecesRequest(digest=DIGEST, pieces=write_pieces(PIECES))


def uploads_to(archive: MemoryArchive, folder: Path, bytes_max: int = 1 << 30) -> PieceUploads:
    numbers = itertools.count()
    sent = SentPieces(folder / "sent", time.time, lambda: str(next(numbers)), bytes_max)
    return PieceUploads(archive, KnownPieces(folder / "pieces.db"), sent, idle_seconds=0.2)


async def said(
    numbers: Sequence[int], *data: bytes, silent: bool = False
) -> AsyncIterator[v1.UploadPiecesRequest]:
    """What a client says; one that is `silent` says nothing more then, and does not go."""
    first = v1.UploadPiecesRequest()
    first.CopyFrom(FIRST)
    first.sent.extend(numbers)
    yield first
    for one in data:
        yield v1.UploadPiecesRequest(data=one)
    if silent:
        await asyncio.Event().wait()


async def missing(uploads: PieceUploads) -> list[int]:
    return await uploads.find_missing(
        v1.FindMissingPiecesRequest(digest=DIGEST, pieces=FIRST.pieces)
    )


async def test_a_sender_that_falls_silent_is_given_up_and_goes_on_later(tmp_path: Path) -> None:
    archive = MemoryArchive(Random(1))
    uploads = uploads_to(archive, tmp_path)
    with pytest.raises(RpcError, match=r"nothing of the bundle came for 0\.2 s"):
        await uploads.take(said(range(4), DATA[0] + DATA[1][:500], DATA[1][500:], silent=True))
    assert archive.objects == {}
    assert await missing(uploads) == [2, 3]
    assert await uploads.take(said([2, 3], DATA[2] + DATA[3])) == DIGEST
    assert archive.objects[bundle_key(DIGEST)] == b"".join(DATA)
    assert list(read_pieces(archive.objects[pieces_key(DIGEST)])) == PIECES
    assert not list((tmp_path / "sent" / "default").iterdir())


async def test_an_archive_that_was_away_costs_no_second_upload(tmp_path: Path) -> None:
    archive = MemoryArchive(Random(1))
    uploads = uploads_to(archive, tmp_path)
    archive.away = True
    with pytest.raises(ArchiveUnavailableError):
        await uploads.take(said(range(4), b"".join(DATA)))
    archive.away = False
    assert await missing(uploads) == []
    assert await uploads.take(said([])) == DIGEST
    assert archive.objects[bundle_key(DIGEST)] == b"".join(DATA)


class OldPipelines(PipelinesServiceServicer):
    """A controller's part of it that knows no pieces."""

    def __init__(self, archive: MemoryArchive) -> None:
        self.archive = archive
        self.whole = 0

    async def FindMissingBundles(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return v1.FindMissingBundlesResponse(digests=request.digests)

    async def UploadBundle(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        self.whole += 1
        return v1.UploadBundleResponse(digest=await take_bundle(self.archive, request_iterator))


class NewPipelines(OldPipelines):
    """One that does."""

    def __init__(self, archive: MemoryArchive, uploads: PieceUploads) -> None:
        super().__init__(archive)
        self.uploads = uploads

    async def FindMissingPieces(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return v1.FindMissingPiecesResponse(missing=await self.uploads.find_missing(request))

    async def UploadPieces(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return v1.UploadPiecesResponse(digest=await self.uploads.take(request_iterator))


OLD: Any = OldPipelines  # abstract to type checkers alone
NEW: Any = NewPipelines


async def uploaded(pipelines: Any, packed: PackedBundle) -> None:
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(refusal)], options=server_options(SESSION)
    )
    port = bind(server, "127.0.0.1:0")
    add_PipelinesServiceServicer_to_server(pipelines, server)
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}") as client:
            assert await client.ensure_bundle(packed)
    finally:
        await server.stop(0)


@pytest.mark.parametrize("controller", ["of before", "without room", "with room"])
async def test_what_takes_no_pieces_gets_the_whole(tmp_path: Path, controller: str) -> None:
    archive = MemoryArchive(Random(1))
    bytes_max = 100 if controller == "without room" else 1 << 30
    uploads = uploads_to(archive, tmp_path, bytes_max)
    pipelines = OLD(archive) if controller == "of before" else NEW(archive, uploads)
    folder = tmp_path / "project"
    folder.mkdir()
    for number in range(200):
        (folder / f"file{number}").write_bytes(Random(number).randbytes(2000))
    with pack(BundleFolder(folder)) as packed:
        await uploaded(pipelines, packed)
        assert archive.objects[bundle_key(packed.digest)] == packed.path.read_bytes()
    assert pipelines.whole == (controller != "with room")
    assert (pieces_key(packed.digest) in archive.objects) == (controller == "with room")
