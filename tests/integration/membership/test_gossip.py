"""Our own members on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest

from services.membership.change_watch import WatchEvictedError
from services.membership.config import GossipConfig
from services.membership.keyring import Keyring
from services.membership.member import ChangeKind
from services.membership.message import SwimState
from services.membership.preset import LOCAL
from services.membership.shell import GossipShell, NotRunningError
from tests.kit.gossip import running, states
from tests.kit.until import turns, until

ALIVE, DEAD, LEFT = SwimState.ALIVE, SwimState.DEAD, SwimState.LEFT


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_sixteen_sealed_and_labelled_members_converge_and_leave() -> None:
    async with contextlib.AsyncExitStack() as stack:
        some: list[GossipShell] = []
        for index in range(16):
            seeds = (str(some[0].address),) if some else ()
            member = running(
                f"m{index}", keyring=Keyring([b"k" * 32]), label="fleet", seeds=seeds, preset=LOCAL
            )
            some.append(await stack.enter_async_context(member))
        alive = {f"m{index}": ALIVE for index in range(16)}
        await until(lambda: all(states(m) == alive for m in some), 15, "sixteen, one view")
        await some[5].leave(5)
        await until(
            lambda: all(states(m)["m5"] is LEFT for m in some), 10, "everybody saw it leave"
        )


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback on this machine")
async def test_over_ipv6() -> None:
    async with (
        running("a", bind_host="::1") as first,
        running("b", bind_host="::1", seeds=(str(first.address),)) as second,
    ):
        await until(lambda: len(states(first)) == len(states(second)) == 2, 5, "both are known")
        assert str(first.address).startswith("[::1]:")


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        ({"label": "a"}, {"label": "b"}, "dropped_wrong_label"),
        ({"label": "a"}, {}, "dropped_wrong_label"),
        ({"keyring": Keyring([b"k" * 16])}, {}, "dropped_not_encrypted"),
        ({}, {"keyring": Keyring([b"k" * 16])}, "dropped_undecryptable"),
        (
            {"keyring": Keyring([b"k" * 16])},
            {"keyring": Keyring([b"x" * 16])},
            "dropped_undecryptable",
        ),
        ({"serf": False}, {}, "dropped_incompatible"),
    ],
    ids=["label", "no label", "not sealed", "sealed", "another key", "no Serf"],
)
async def test_strangers_stay_strangers(
    ours: dict[str, object], theirs: dict[str, object], reason: str
) -> None:
    async with running("a", **ours) as first, running("b", **theirs) as second:
        assert await second.join([str(first.address)]) == 0
        await until(lambda: first.counters.get(reason, 0) >= 1, 5, f"{reason} is counted")
        assert states(first) == {"a": ALIVE}
        assert states(second) == {"b": ALIVE}


async def test_joining_counts_who_answered() -> None:
    async with running("a") as first, running("b") as second:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{closed.getsockname()[1]}"
            assert await second.join([nobody, f"a/{first.address}"]) == 1
        with pytest.raises(ValueError, match="port"):
            await second.join(["host:99999"])


async def test_a_seed_that_comes_late_is_found() -> None:
    async with running("a") as first:
        place = str(first.address)
        port = first.address.port
        async with running("early", seeds=(place,)):
            pass
    async with running("b", seeds=(place,), preset=LOCAL) as second:
        await until(lambda: second.counters.get("stream_failures", 0) >= 0, 5, "it has tried")
        async with running("a", bind_port=port) as late:
            await until(lambda: states(second).get("a") is ALIVE, 15, "the seed is found")
            await until(lambda: states(late).get("b") is ALIVE, 5, "both ways")


async def test_a_member_that_restarts_on_another_port_gets_its_name_back() -> None:
    async with running("a", preset=LOCAL) as first:
        seeds = (str(first.address),)
        async with running("b", seeds=seeds, preset=LOCAL, incarnation=5):
            await until(lambda: states(first).get("b") is ALIVE, 30, "b is known")
        async with running("b", seeds=seeds, preset=LOCAL) as again:
            port = again.address.port
            await until(
                lambda: any(m.name == "b" and m.port == port for m in first.members()),
                30,
                "b is known at its new port",
            )
            assert first.counters["name_conflicts"] >= 1


async def test_a_watcher_sees_changes_and_a_slow_one_is_cut_off() -> None:
    config = GossipConfig(name="a", bind_host="127.0.0.1", bind_port=0, preset=LOCAL)
    async with GossipShell(replace(config, watch_size=1)) as gossip:
        task = asyncio.create_task(gossip.run())
        async with gossip.watch() as slow, gossip.watch() as other:
            await gossip.set_tags({"a": "1"})
            first = await anext(other)
            assert (first.kind, first.revision) == (ChangeKind.UPDATED, gossip.revision)
            await gossip.set_tags({"a": "2"})
            await gossip.set_tags({"a": "3"})
            assert (await anext(slow)).member.tags["a"] == "1"
            with pytest.raises(WatchEvictedError):
                await anext(slow)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    async with contextlib.AsyncExitStack() as stack:
        gossip = await stack.enter_async_context(GossipShell(config))
        watch = await stack.enter_async_context(gossip.watch())
        await stack.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_k10_two_members_of_one_name_both_say_so_and_the_first_keeps_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        running("a", preset=LOCAL) as first,
        running("pi", seeds=(str(first.address),), preset=LOCAL) as holder,
    ):
        await until(lambda: states(first).get("pi") is ALIVE, 5, "pi is known")
        async with running("pi", seeds=(str(first.address),), preset=LOCAL) as second:
            words = f"two members call themselves pi: {holder.address} has the name"
            await until(lambda: words in caplog.text, 10, "the word of the others")
            own = f"two members call themselves pi: {second.address} has the name"
            await until(lambda: own in caplog.text, 10, "the word of the second itself")
            [shown] = [member for member in first.members() if member.name == "pi"]
            assert shown.port == holder.address.port


async def test_misuse_is_told() -> None:
    config = GossipConfig(name="a", bind_host="127.0.0.1", bind_port=0)
    gossip = GossipShell(config)
    with pytest.raises(NotRunningError, match="async with"):
        await gossip.run()
    with pytest.raises(ValueError, match="preset"):
        GossipShell(replace(config, preset="moon"))
    with pytest.raises(ValueError, match="512"):
        GossipShell(replace(config, tags={"a": "x" * 600}))
    async with gossip:
        taken = replace(config, bind_port=gossip.address.port)
        with pytest.raises(OSError, match="cannot bind"):
            await GossipShell(taken).__aenter__()


@pytest.mark.parametrize("count", range(6))
async def test_a_member_that_ends_as_it_is_dialled_closes_the_connection(count: int) -> None:
    """At whichever turn of the loop it is cancelled: waiting, just accepted, task just made."""
    config = GossipConfig(name="a", bind_host="127.0.0.1", bind_port=0)
    async with GossipShell(config) as gossip, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gossip.run())
        await turns(1)
        host, port = gossip.address.host, gossip.address.port
        dialled = socket.create_connection((host, port), timeout=10)
        await turns(count)
        running.cancel()
    with dialled, contextlib.suppress(ConnectionResetError):
        assert dialled.recv(1) == b""


async def test_ten_members_form_within_two_seconds_of_gossip() -> None:
    """M9 on real sockets, at the size a shared machine allows."""
    async with contextlib.AsyncExitStack() as stack:
        some: list[GossipShell] = []
        for index in range(10):
            seeds = (str(some[0].address),) if some else ()
            member = running(f"m{index}", seeds=seeds, preset=LOCAL, serf=False)
            some.append(await stack.enter_async_context(member))
        await until(lambda: all(len(states(m)) == 10 for m in some), 10, "ten, one view")
        assert all(m.awareness == 0 for m in some)
