"""The ring of a cluster with identity, as one process's member keeps it and is given it."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.membership.gossip_member import ClusterKeys, GossipMember, open_member
from services.membership.keyring_file import KeyringFile
from services.membership.message import SwimState
from services.membership.settings import GossipSettings
from services.runtime.process import StartRefusedError
from tests.kit.gossip import states
from tests.kit.until import until

A, B, C = b"a" * 32, b"b" * 32, b"c" * 16


def unused() -> Any:
    """What a member proves that serves nothing."""
    raise AssertionError("nothing is served")


@contextlib.asynccontextmanager
async def member(
    name: str, folder: Path, *first: bytes, seeds: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[GossipMember]:
    """A member of a process whose identity is in a folder."""
    given = GossipSettings(
        name=name, gossip="127.0.0.1:0", gossip_preset="local", seeds=seeds, **settings
    )
    folder.mkdir(exist_ok=True)
    keys = ClusterKeys(folder / "gossip.keyring", first, unused)
    async with open_member(
        given, {}, clock=time.monotonic, wall=time.time, rng=random.Random(1), cluster_keys=keys
    ) as opened:
        assert opened is not None
        running = asyncio.create_task(opened.run())
        try:
            yield opened
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def sees(one: GossipMember, name: str) -> bool:
    return states(one.gossip).get(name) is SwimState.ALIVE


async def test_a_member_that_was_away_during_a_rotation_is_given_the_ring_and_gossips_again(
    tmp_path: Path,
) -> None:
    async with member("controller", tmp_path / "c", A) as controller:
        seeds = (str(controller.gossip.address),)
        said: list[tuple[bytes, ...]] = []
        controller.on_keys = lambda: said.append(controller.keys)
        async with member("cam-1", tmp_path / "n", A, seeds=seeds) as node:
            await until(lambda: sees(controller, "cam-1"), 30, "the node in gossip")
            await node.gossip.leave(5)
        for step in (
            controller.gossip.serf.install_key(B),
            controller.gossip.serf.use_key(B),
            controller.gossip.serf.remove_key(A),
        ):
            await step
        assert said[-1] == controller.keys == (B,)
        kept = KeyringFile(tmp_path / "c" / "gossip.keyring")
        await until(lambda: kept.read() == (B,), 30, "the ring kept")
        async with member("cam-1", tmp_path / "n", seeds=seeds) as node:
            assert node.keys == (A,)
            assert await node.gossip.join(list(seeds)) == 0
            node.take_keys(controller.keys)
            assert await node.gossip.join(list(seeds)) == 1
            await until(lambda: sees(controller, "cam-1"), 30, "the node in gossip again")
            kept = KeyringFile(tmp_path / "n" / "gossip.keyring")
            await until(lambda: kept.read() == (B,), 30, "the ring kept at the node")


async def test_a_member_that_has_no_key_yet_seals_from_the_first_that_it_is_given(
    tmp_path: Path,
) -> None:
    async with member("cam-1", tmp_path) as node:
        assert node.keys == ()
        assert not (tmp_path / "gossip.keyring").exists()
        node.take_keys(())
        assert node.keys == ()
        node.take_keys((B, A))
        ring = node.gossip.keyring
        assert (ring.keys, ring.seals, ring.demands) == ((B, A), True, True)
        kept = KeyringFile(tmp_path / "gossip.keyring")
        await until(lambda: kept.exists and kept.read() == (B, A), 30, "the ring kept")


async def test_what_the_file_says_is_told_and_a_ring_that_is_the_same_is_not(
    tmp_path: Path,
) -> None:
    async with member("controller", tmp_path, A) as controller:
        said: list[tuple[bytes, ...]] = []
        controller.on_keys = lambda: said.append(controller.keys)
        controller.take_keys((A,))
        assert said == []
        KeyringFile(tmp_path / "gossip.keyring").write((C, A))
        await until(lambda: said == [(C, A)], 30, "the ring of the file")


async def test_a_file_of_the_operator_begins_with_the_ring_of_the_cluster(tmp_path: Path) -> None:
    KeyringFile(tmp_path / "gossip.keyring").write((B, A))
    own = tmp_path / "own.keys"
    async with member("cam-1", tmp_path, gossip_keyring=own) as node:
        assert node.keys == (B, A)
    assert KeyringFile(own).read() == (B, A)
    # Keys of the operator's own come before it.
    async with member("cam-1", tmp_path, gossip_keys=(C,)) as node:
        assert node.keys == (C,)


async def test_a_ring_that_cannot_be_read_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "gossip.keyring").write_text("tomato")
    with pytest.raises(StartRefusedError, match=r"gossip.keyring: a key of 6 characters"):
        async with member("cam-1", tmp_path):
            pass
