"""WatchMembers: snapshot, mark, changes, and where to go on from."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from control.core.errors import WatcherTooSlowError
from control.front.control_plane import ControlPlane
from control.front.members import GossipMembers, MemberShown
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from services.membership.shell import GossipShell
from shoal.client import Client, SnapshotEnd
from shoal.model import MemberState
from shoal.v1 import nodes_service_pb2 as v1
from shoal.v1 import nodes_service_pb2_grpc as v1_grpc
from tests.kit.gossip import running
from tests.kit.running_controller import running_controller
from tests.kit.until import until


async def test_a_watch_resumes_where_it_was_and_an_older_life_gets_a_snapshot(
    tmp_path: Path,
) -> None:
    async with (
        running_controller(tmp_path / "controller") as controller,
        grpc.aio.insecure_channel(controller.grpc) as channel,
    ):
        stub = v1_grpc.NodesServiceStub(channel)
        first: Any = stub.WatchMembers(v1.WatchMembersRequest())
        own = await first.read()
        assert (own.member.name, own.revision) == ("controller", 0)  # nothing to go on from yet
        mark = await first.read()
        assert mark.WhichOneof("change") == "snapshot_end"
        assert mark.revision > 0
        async with running("node-1", preset="local", seeds=(controller.gossip,)):
            joined = await first.read()
            assert joined.member.name == "node-1"
            assert joined.member.state == v1.MEMBER_STATE_ALIVE
            assert joined.member.incarnation > 0
            assert joined.member.HasField("state_time")
            assert joined.revision > mark.revision
            first.cancel()
            resumed: Any = stub.WatchMembers(v1.WatchMembersRequest(since_revision=mark.revision))
            again = await resumed.read()
            assert (again.member.name, again.revision) == ("node-1", joined.revision)
            resumed.cancel()
            # Revisions of an earlier life of the controller are smaller than all of this one.
            older: Any = stub.WatchMembers(v1.WatchMembersRequest(since_revision=mark.revision - 1))
            shown = [await older.read() for _ in range(3)]
            assert [one.WhichOneof("change") for one in shown] == [
                "member",
                "member",
                "snapshot_end",
            ]
            older.cancel()


async def test_a_member_that_is_pruned_is_shown_as_forgotten(tmp_path: Path) -> None:
    async with (
        running_controller(tmp_path / "controller") as controller,
        Client(controller.grpc) as client,
        running("peer", preset="local", seeds=(controller.gossip,)) as peer,
    ):
        seen: list[tuple[str, MemberState]] = []

        async def follow() -> None:
            async with contextlib.aclosing(client.watch_members()) as changes:
                async for change in changes:
                    if not isinstance(change, SnapshotEnd):
                        seen.append((change.name, change.state))  # noqa: PERF401 as they come

        following = asyncio.create_task(follow())
        async with running("board", preset="local", seeds=(controller.gossip,)):
            await until(lambda: ("board", MemberState.ALIVE) in seen, what="the new member")
            await until(lambda: len(peer.members()) == 3, what="the peer knows it, too")
        await until(lambda: ("board", MemberState.DEAD) in seen, 30, "its death")
        peer.serf.force_leave("board", prune=True)
        await until(lambda: ("board", MemberState.UNKNOWN) in seen, what="that it is forgotten")
        following.cancel()
        assert {one.name for one in await client.members(everyone=True)} == {"controller", "peer"}


@contextlib.asynccontextmanager
async def telling(folder: Path, gossip: GossipShell, **limits: int) -> AsyncIterator[GossipMembers]:
    """Members of one gossip, which they follow."""
    members = GossipMembers(gossip, clock=time.monotonic, wall=lambda: datetime.now(UTC), **limits)
    async with (
        SqliteStore(folder / "controller.db") as store,
        ControlPlane(
            store=store,
            config=PlaneConfig(),
            clock=time.monotonic,
            wall=lambda: datetime.now(UTC),
            ids=lambda characters: "0" * characters,
        ) as plane,
    ):
        task = asyncio.create_task(members.tell(plane))
        try:
            yield members
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_slow_watcher_is_cut_off_and_may_begin_again(
    tmp_path: Path,
) -> None:
    async with (
        running("controller", preset="local") as gossip,
        telling(tmp_path, gossip, pending_max=2) as members,
    ):
        with members.watch(0) as changes:
            own = await anext(changes)
            assert isinstance(own, MemberShown)
            assert not isinstance(await anext(changes), MemberShown)
            async with contextlib.AsyncExitStack() as stack:
                for number in range(4):  # more than may wait, and nobody takes them
                    seeds = (str(gossip.address),)
                    await stack.enter_async_context(
                        running(f"node-{number}", preset="local", seeds=seeds)
                    )
                await until(lambda: len(gossip.members()) == 5, what="five members")
                with pytest.raises(WatcherTooSlowError, match="watch again"):
                    async for _ in changes:
                        pass
        with members.watch(0) as changes:
            names: list[str] = []
            async for change in changes:
                if not isinstance(change, MemberShown):
                    break
                names.append(change.view.name)
            assert len(names) == 5
