"""Bundles in pieces: what is sent of them, what is known of them, and what is refused."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest

from control.controller import PIECES_NAME, SENT_NAME, ControllerAddresses
from shoal.bundle import BundleFolder, PackedBundle, pack
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.pieces import Piece, measure, placed, write_pieces
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.v1 import pipelines_service_pb2_grpc as v1_grpc
from tests.kit.running_controller import running_controller
from tests.kit.tcp_proxy import TcpProxy
from tests.kit.until import until

SECONDS = 60.0


@pytest.fixture
async def stub(
    controller: ControllerAddresses,
) -> AsyncIterator[v1_grpc.PipelinesServiceStub]:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        yield v1_grpc.PipelinesServiceStub(channel)


def folder_of(tmp_path: Path, files: int = 2000, size_bytes: int = 1024) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    rng = Random(14)
    for index in range(files):
        (folder / f"module{index:04}.py").write_bytes(rng.randbytes(size_bytes))
    return folder


def in_archive(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "controller" / "archive" / "bundles" / "sha256" / digest


def carried_or_over(proxy: TcpProxy, size_bytes: float, sending: asyncio.Task[bool]) -> bool:
    return sending.done() or proxy.carried > size_bytes


async def uploaded(proxy: TcpProxy, client: Client, packed: PackedBundle) -> int:
    """Upload a bundle and return how many bytes that took, both ways."""
    before = proxy.carried
    assert await client.ensure_bundle(packed)
    return proxy.carried - before


async def test_a_second_submission_sends_only_what_changed(
    controller: ControllerAddresses, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path)
    async with TcpProxy(controller.grpc) as proxy, Client(proxy.address) as client:
        with pack(BundleFolder(folder)) as packed:
            first = await uploaded(proxy, client, packed)
            assert packed.size_bytes < first < 1.1 * packed.size_bytes
            assert in_archive(tmp_path, packed.digest).read_bytes() == packed.path.read_bytes()
        for name in ("module1000.py", "added.py", "module0000.py"):
            (folder / name).write_bytes(Random(name).randbytes(1024))
            with pack(BundleFolder(folder)) as packed:
                assert await uploaded(proxy, client, packed) < 100 * 1024
                whole = in_archive(tmp_path, packed.digest)
                assert whole.read_bytes() == packed.path.read_bytes()
                assert not await client.ensure_bundle(packed)
        # What is left is what went before: nothing has to be sent but which pieces it is of.
        (folder / "added.py").unlink()
        with pack(BundleFolder(folder)) as packed:
            assert await uploaded(proxy, client, packed) < 100 * 1024
    assert not any((tmp_path / "controller" / SENT_NAME / "default").iterdir())


async def test_a_large_file_that_moves_is_not_sent_again(
    controller: ControllerAddresses, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, files=3)
    model = Random(3).randbytes(9_000_000)
    (folder / "model.bin").write_bytes(model)
    async with TcpProxy(controller.grpc) as proxy, Client(proxy.address) as client:
        with pack(BundleFolder(folder)) as packed:
            assert await uploaded(proxy, client, packed) > len(model)
        (folder / "models").mkdir()
        (folder / "model.bin").rename(folder / "models" / "new.bin")
        with pack(BundleFolder(folder)) as packed:
            assert await uploaded(proxy, client, packed) < 50_000
            assert in_archive(tmp_path, packed.digest).read_bytes() == packed.path.read_bytes()


async def test_an_upload_that_is_cut_goes_on_where_it_was(
    controller: ControllerAddresses, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, files=40, size_bytes=1 << 20)
    with pack(BundleFolder(folder)) as packed:
        async with TcpProxy(controller.grpc) as proxy, Client(proxy.address) as client:
            sending = asyncio.create_task(client.ensure_bundle(packed))
            for share in (0.25, 0.5):
                enough = partial(carried_or_over, proxy, share * packed.size_bytes, sending)
                await until(enough, SECONDS)
                assert not sending.done(), sending
                proxy.cut()
            assert await asyncio.wait_for(sending, SECONDS)
            # Lost is what was on its way at a cut, which is little against the whole.
            assert packed.size_bytes < proxy.carried < 1.5 * packed.size_bytes
        assert in_archive(tmp_path, packed.digest).read_bytes() == packed.path.read_bytes()


async def test_an_upload_goes_on_in_another_process_and_after_a_restart(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, files=20, size_bytes=1 << 20)
    with pack(BundleFolder(folder)) as packed:
        pieces = measure(packed.path, packed.ends)
        half = range(len(pieces) // 2)
        async with running_controller(tmp_path / "controller") as addresses:
            error = await refusal(addresses.grpc, request(packed, pieces, half), [])
            assert error.reason == "BUNDLE_SIZE"
            error = await refusal(
                addresses.grpc, request(packed, pieces, half), data_of(packed, pieces, half)
            )
            assert error.reason == "PIECES_MISSING"
        async with (
            running_controller(tmp_path / "controller") as addresses,
            TcpProxy(addresses.grpc) as proxy,
            Client(proxy.address) as client,
        ):
            assert await uploaded(proxy, client, packed) < 0.6 * packed.size_bytes
        assert in_archive(tmp_path, packed.digest).read_bytes() == packed.path.read_bytes()


async def test_two_clients_upload_one_bundle_at_once(
    controller: ControllerAddresses, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path)
    async with Client(controller.grpc) as one, Client(controller.grpc) as other:
        with pack(BundleFolder(folder)) as packed:
            await asyncio.gather(
                *(client.ensure_bundle(packed) for client in (one, other, one, other))
            )
            assert in_archive(tmp_path, packed.digest).read_bytes() == packed.path.read_bytes()


async def test_pieces_that_left_the_archive_are_sent_again(
    controller: ControllerAddresses, client: Client, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path)
    with pack(BundleFolder(folder)) as packed:
        assert await client.ensure_bundle(packed)
        first = in_archive(tmp_path, packed.digest)
    for damage in (Path.unlink, shorten, spoil):
        (folder / "changed.py").write_text(damage.__name__)
        damage(first)
        with pack(BundleFolder(folder)) as packed:
            assert await client.ensure_bundle(packed)
            first = in_archive(tmp_path, packed.digest)
            assert first.read_bytes() == packed.path.read_bytes()


async def test_a_memory_that_is_damaged_costs_no_more_than_its_pieces(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    state = tmp_path / "controller"
    for text in ("one", "two"):
        (folder / "changed.py").write_text(text)
        async with running_controller(state) as addresses, Client(addresses.grpc) as client:
            with pack(BundleFolder(folder)) as packed:
                assert await client.ensure_bundle(packed)
                assert in_archive(tmp_path, packed.digest).read_bytes() == packed.path.read_bytes()
        for suffix in ("-wal", "-shm"):
            (state / (PIECES_NAME + suffix)).unlink(missing_ok=True)
        (state / PIECES_NAME).write_bytes(b"no database" * 1000)


async def test_a_namespace_does_not_hear_what_another_one_has(
    controller: ControllerAddresses, tmp_path: Path, stub: v1_grpc.PipelinesServiceStub
) -> None:
    folder = folder_of(tmp_path)
    with pack(BundleFolder(folder)) as packed:
        pieces = measure(packed.path, packed.ends)
        async with Client(controller.grpc, namespace="yard") as client:
            assert await client.ensure_bundle(packed)
        written = write_pieces(pieces)
        for namespace, count in (("yard", 0), ("lab", len(pieces))):
            answer = await stub.FindMissingPieces(
                v1.FindMissingPiecesRequest(namespace=namespace, digest="0" * 64, pieces=written)
            )
            assert len(answer.missing) == count


Spoilt = Callable[[PackedBundle, Sequence[Piece]], tuple[v1.UploadPiecesRequest, list[bytes]]]


def other_bytes(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    every = range(len(pieces))
    data = data_of(packed, pieces, every)
    return request(packed, pieces, every), [*data[:-1], data[-1][:-1] + b"?"]


def too_many_bytes(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    every = range(len(pieces))
    return request(packed, pieces, every), [*data_of(packed, pieces, every), b"?"]


def nothing_sent(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    return request(packed, pieces, []), []


def other_sizes(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    wrong = [Piece(piece.sha256, piece.size_bytes + 1) for piece in pieces]
    every = range(len(pieces))
    return request(packed, wrong, every), data_of(packed, pieces, every)


def another_digest(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    every = range(len(pieces))
    asked = request(packed, pieces, every)
    asked.digest = "1" * 64
    return asked, data_of(packed, pieces, every)


def a_million(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    return request(packed, [*pieces] * (1_000_000 // len(pieces) + 1), []), []


def a_number_beyond(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    return request(packed, pieces, [len(pieces)]), []


def a_number_twice(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    return request(packed, pieces, [0, 0]), []


def too_large(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    every = range(len(pieces))
    return request(packed, pieces, every), [bytes((1 << 20) + 1)]


def no_pieces(
    packed: PackedBundle, _pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    return v1.UploadPiecesRequest(digest=packed.digest, pieces=b"?" * 37), []


def out_of_its_namespace(
    packed: PackedBundle, pieces: Sequence[Piece]
) -> tuple[v1.UploadPiecesRequest, list[bytes]]:
    asked = request(packed, pieces, [])
    asked.namespace = "../../etc"
    return asked, []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_bytes, "PIECE_DIGEST"),
        (too_many_bytes, "BUNDLE_SIZE"),
        (nothing_sent, "PIECES_MISSING"),
        (other_sizes, "PIECE_DIGEST"),
        (another_digest, "BUNDLE_DIGEST"),
        (a_million, "INVALID_PIECES"),
        (a_number_beyond, "INVALID_PIECES"),
        (a_number_twice, "INVALID_PIECES"),
        (too_large, "BUNDLE_PIECE"),
        (no_pieces, "INVALID_PIECES"),
        (out_of_its_namespace, "INVALID_NAME"),
    ],
)
async def test_pieces_that_are_not_what_they_say_are_refused_and_harm_no_other_upload(
    controller: ControllerAddresses, client: Client, tmp_path: Path, spoil: Spoilt, reason: str
) -> None:
    with pack(BundleFolder(folder_of(tmp_path, files=100))) as packed:
        pieces = measure(packed.path, packed.ends)
        asked, data = spoil(packed, pieces)
        assert (await refusal(controller.grpc, asked, data)).reason == reason
        assert not in_archive(tmp_path, packed.digest).exists()
        assert not in_archive(tmp_path, asked.digest).exists()
        assert await client.ensure_bundle(packed)
        assert in_archive(tmp_path, packed.digest).read_bytes() == packed.path.read_bytes()


def request(
    packed: PackedBundle, pieces: Sequence[Piece], sent: Sequence[int]
) -> v1.UploadPiecesRequest:
    return v1.UploadPiecesRequest(
        namespace="default", digest=packed.digest, pieces=write_pieces(pieces), sent=sent
    )


def data_of(packed: PackedBundle, pieces: Sequence[Piece], sent: Sequence[int]) -> list[bytes]:
    whole = packed.path.read_bytes()
    where = list(placed(pieces))
    data = b"".join(whole[where[number].begin : where[number].end] for number in sent)
    return [data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)]


async def refusal(address: str, first: v1.UploadPiecesRequest, data: Sequence[bytes]) -> ShoalError:
    """Upload as no client of ours does, and return how it is refused."""
    async with Client(address) as client:

        async def upload(_: None, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109
            requests = [first, *(v1.UploadPiecesRequest(data=one) for one in data)]
            stub: Any = client._held.pipelines
            return await stub.UploadPieces(iter(requests), timeout=timeout)

        with pytest.raises(ShoalError) as caught:
            await client._held.connection.call(upload, None)
        return caught.value


def shorten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert hashlib.sha256(data).hexdigest() != path.name
