"""A bundle is fetched by its pieces: those that earlier bundles on the node have are not fetched again."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import pytest

from edge_agent.content_cache import ContentCache
from edge_agent.download import Downloader
from edge_agent.long_work import LongWork
from edge_agent.web_sessions import WebSessions
from shoal.bundle import BundleFolder, pack
from shoal.pieces import Piece, measure, write_pieces
from tests.kit.object_server import ObjectServer

MIB = 1 << 20


@dataclass(slots=True)
class Node:
    """A cache of bundles, an archive, and a folder that changes."""

    server: ObjectServer
    cache: ContentCache
    folder: Path
    kept: Path

    def stored(self, *, listed: bool = True) -> tuple[str, bytes]:
        """Store the folder as a bundle is stored; return its digest and its bytes."""
        with pack(BundleFolder(self.folder)) as packed:
            data = packed.path.read_bytes()
            self.server.add(data)
            if listed:
                pieces = measure(packed.path, packed.ends)
                self.server.objects[f"{packed.digest}.pieces"] = write_pieces(pieces)
            return packed.digest, data

    async def fetched(self, digest: str) -> tuple[bytes, int]:
        """Fetch a bundle; return its bytes and how many were sent for it."""
        before = self.server.sent_bytes
        url, pieces_url = self.server.url(digest), self.server.url(f"{digest}.pieces")
        async with self.cache.borrow(digest, url, pieces_url=pieces_url) as path:
            return path.read_bytes(), self.server.sent_bytes - before

    def change(self, name: str) -> None:
        """Change a file, or add one."""
        (self.folder / name).write_bytes(Random(name).randbytes(1024))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with opened(tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(tmp_path: Path, bytes_max: int = 100 * MIB) -> AsyncIterator[Node]:
    folder = tmp_path / "project"
    folder.mkdir()
    rng = Random(7)
    for index in range(500):
        (folder / f"module{index:03}.py").write_bytes(rng.randbytes(1024))
    (folder / "model.bin").write_bytes(rng.randbytes(9 * MIB))
    async with (
        ObjectServer() as server,
        aiohttp.ClientSession() as client,
        LongWork(time.monotonic) as work,
    ):
        downloader = Downloader(WebSessions(client, client), chance=lambda: 0.0)
        kept = tmp_path / "bundles"
        cache = ContentCache(kept, downloader, work, what="bundle", bytes_max=bytes_max)
        yield Node(server, cache, folder, kept / "sha256")


async def test_only_what_changed_is_fetched(node: Node) -> None:
    digest, data = node.stored()
    assert await node.fetched(digest) == (
        data,
        len(data) + len(node.server.objects[f"{digest}.pieces"]),
    )
    for name in ("module250.py", "added.py", "aaa.py", "zzz.py"):
        node.change(name)
        digest, data = node.stored()
        found, sent = await node.fetched(digest)
        assert found == data
        assert sent < 200 * 1024
    (node.folder / "model.bin").rename(node.folder / "other.bin")
    digest, data = node.stored()
    found, sent = await node.fetched(digest)
    assert found == data
    assert sent < 200 * 1024


async def test_a_fetch_that_is_cut_goes_on_where_it_was(node: Node) -> None:
    digest, _ = node.stored()
    await node.fetched(digest)
    (node.folder / "model.bin").write_bytes(Random(8).randbytes(9 * MIB))
    digest, data = node.stored()
    pieces_url = node.server.url(f"{digest}.pieces")
    # So that it is the bundle that is cut, and not its list.
    assert await node.cache._lists.find(digest, pieces_url, lambda _: None) is not None
    node.server.cut_at = 5 * MIB
    found, sent = await node.fetched(digest)
    assert found == data
    assert sent < 11 * MIB  # from the beginning it would be 14


async def test_a_bundle_without_a_list_is_fetched_whole(node: Node) -> None:
    for name in ("one.py", "two.py"):
        node.change(name)
        digest, data = node.stored(listed=False)
        assert await node.fetched(digest) == (data, len(data))
    assert len(node.cache.digests()) == 2


@pytest.mark.parametrize("wrong", ["no list", "of another bundle", "shorter", "longer", "huge"])
async def test_a_list_that_is_wrong_costs_bytes_alone(node: Node, wrong: str) -> None:
    digest, _ = node.stored()
    await node.fetched(digest)
    listed = node.server.objects[f"{digest}.pieces"]
    node.change("module100.py")
    digest, data = node.stored()
    right = node.server.objects[f"{digest}.pieces"]
    match wrong:
        case "no list":
            bad = b"<html>no such key</html>"
        case "of another bundle":
            bad = listed
        case "shorter":
            bad = right[: -36 * 3]
        case "longer":
            bad = right + write_pieces([Piece("0" * 64, 1000)])
        case _:
            bad = write_pieces([Piece("0" * 64, 8 * MIB)]) * 100
    node.server.objects[f"{digest}.pieces"] = bad
    found, _ = await node.fetched(digest)
    assert found == data


async def test_a_bundle_that_is_damaged_on_the_disk_damages_no_other(node: Node) -> None:
    first, _ = node.stored()
    await node.fetched(first)
    damaged = bytearray((node.kept / first).read_bytes())
    for place in range(0, len(damaged), 100_000):
        damaged[place] ^= 1
    (node.kept / first).write_bytes(damaged)
    node.change("module100.py")
    digest, data = node.stored()
    found, _ = await node.fetched(digest)
    assert found == data


async def test_an_archive_without_ranges_sends_the_whole(node: Node) -> None:
    digest, _ = node.stored()
    await node.fetched(digest)
    node.server.no_ranges = True
    node.change("zzz.py")
    digest, data = node.stored()
    found, _ = await node.fetched(digest)
    assert found == data


async def test_lists_go_with_their_bundles(tmp_path: Path) -> None:
    async with opened(tmp_path, bytes_max=21 * MIB) as node:
        for name in ("one.py", "two.py", "three.py"):
            node.change(name)
            digest, _ = node.stored()
            await node.fetched(digest)
        assert len(node.cache.digests()) == 2
        assert {path.stem for path in node.kept.glob("*.pieces")} == set(node.cache.digests())
