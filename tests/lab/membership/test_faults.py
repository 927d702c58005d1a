"""Members as processes in network namespaces, and what a network does to them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

from tests.kit.member_process import MemberProcess, member_process
from tests.kit.namespaces import Lab, lab
from tests.kit.until import until

HOSTS = 5


@contextlib.asynccontextmanager
async def members(
    net: Lab, *options: str, settled: bool = True
) -> AsyncIterator[list[MemberProcess]]:
    """One member on each host, all joined through the first."""
    async with contextlib.AsyncExitStack() as stack:
        started: list[MemberProcess] = []
        for host in range(1, HOSTS + 1):
            seed = net.address(1) if host > 1 else ""
            process = member_process(
                net.inside(host), f"n{host}", net.address(host), seed, *options
            )
            started.append(await stack.enter_async_context(process))
        if settled:
            await until(lambda: one_view(started), 30, "five members, one view")
        yield started


def one_view(some: list[MemberProcess]) -> bool:
    whole = {f"n{host}": "alive" for host in range(1, HOSTS + 1)}
    return all(member.view == whole for member in some)


def living(member: MemberProcess) -> set[str]:
    return {name for name, state in member.view.items() if state == "alive"}


async def test_m8_a_partition_beyond_reaping_heals_by_itself() -> None:
    async with (
        lab(HOSTS) as net,
        members(net, "--reap-seconds=2", "--heal-seconds=3") as all_five,
    ):
        await net.cut([1, 2], [3, 4, 5])
        await net.cut([3, 4, 5], [1, 2])
        await until(
            lambda: (
                all(living(m) == {"n1", "n2"} for m in all_five[:2])
                and all(living(m) == {"n3", "n4", "n5"} for m in all_five[2:])
            ),
            60,
            "each side sees itself alone",
        )
        await until(
            lambda: ("reaped", "n1") in all_five[4].changes, 30, "the other side is forgotten"
        )
        await net.heal()

        await until(lambda: one_view(all_five), 30, "one view again")


async def test_m6_a_third_of_all_packets_lost_buries_nobody() -> None:
    async with lab(HOSTS) as net:
        await net.lose(30)
        async with members(net, settled=False) as all_five:
            await until(lambda: all(len(m.view) == 5 for m in all_five), 30, "all are acquainted")
            suspected = asyncio.Event()

            def enough() -> bool:
                kinds = [kind for member in all_five for kind, _ in member.changes]
                return kinds.count("suspected") >= 5 or suspected.is_set()

            # Long enough for suspicions to come and go, if there are any.
            loop = asyncio.get_running_loop()
            timer = loop.call_later(25, suspected.set)
            await until(enough, 40, "suspicions come and go")
            timer.cancel()
            await until(
                lambda: all(len(living(m)) == 5 for m in all_five), 40, "nobody stays suspect"
            )

            assert [m.died() for m in all_five] == [[]] * HOSTS


async def test_a_one_way_cut_of_datagrams_is_overcome() -> None:
    async with lab(HOSTS) as net, members(net) as all_five:
        await net.cut([1], [2], udp_only=True)
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(20, over.set)
        await until(over.is_set, 30, "twenty seconds")

        assert [m.died() for m in all_five] == [[]] * HOSTS
        assert one_view(all_five)


async def test_a_pulled_cable_is_found_and_put_back() -> None:
    async with lab(HOSTS) as net, members(net) as all_five:
        await net.cut([5], [1, 2, 3, 4])
        await net.cut([1, 2, 3, 4], [5])
        await until(
            lambda: all(m.view.get("n5") == "dead" for m in all_five[:4]), 40, "n5 is found dead"
        )
        assert all(member.awareness == 0 for member in all_five[:4])
        await net.heal()
        await until(lambda: one_view(all_five), 40, "n5 is back")


async def test_a_process_that_is_stopped_and_goes_on_is_never_failed() -> None:
    async with lab(HOSTS) as net, members(net) as all_five:
        all_five[3].process.send_signal(signal.SIGSTOP)
        await until(
            lambda: any(m.view.get("n4") == "suspect" for m in all_five), 20, "n4 is suspected"
        )
        all_five[3].process.send_signal(signal.SIGCONT)
        await until(lambda: one_view(all_five), 20, "n4 has refuted")

        assert all("n4" not in member.died() for member in all_five)
