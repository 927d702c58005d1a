"""A bundle whose sender falls silent is given up, and nothing of it stays."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control.front.api.bundle_upload import take_bundle
from services.archive.directory_store import DirectoryStore
from services.archive.signature import PathSigner
from services.runtime.rpc import RpcError
from shoal.v1 import pipelines_service_pb2


@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_a_sender_that_falls_silent_is_given_up(tmp_path: Path, pieces: int) -> None:
    async def requests() -> AsyncIterator[pipelines_service_pb2.UploadBundleRequest]:
        for piece in range(pieces):
            yield pipelines_service_pb2.UploadBundleRequest(
                digest="" if piece else "ab" * 32, size_bytes=0 if piece else 100, data=b"x"
            )
        await asyncio.Event().wait()

    signer = PathSigner("http://127.0.0.1:1", b"0123456789abcdef")
    async with DirectoryStore(
        tmp_path, signer=signer, wall=time.time, new_id=lambda: f"n{time.monotonic_ns()}"
    ) as store:
        with pytest.raises(RpcError, match=r"nothing of the bundle came for 0\.2 s"):
            await asyncio.wait_for(take_bundle(store, requests(), idle_seconds=0.2), 30)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
