"""M1: Go memberlist nodes and our plain members in one cluster."""

from __future__ import annotations

import contextlib

import pytest

from services.membership.keyring import Keyring
from services.membership.message import SwimState
from tests.kit.gossip import running, states
from tests.kit.memberlist import GoMembers
from tests.kit.until import until

ALIVE, DEAD, LEFT = SwimState.ALIVE, SwimState.DEAD, SwimState.LEFT


@pytest.mark.parametrize("compact", [False, True], ids=["maps", "compact"])
@pytest.mark.parametrize("key", [b"", b"k" * 32], ids=["plain", "aes256"])
async def test_m1_three_and_three(key: bytes, *, compact: bool) -> None:
    keyring = Keyring([key] if key else [])
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        theirs = await enter(GoMembers(count=3, key=key))
        ours = [
            await enter(
                running(
                    f"py{index}",
                    serf=False,
                    keyring=keyring,
                    compact=compact,
                    seeds=(theirs.address(0),) if index else (),
                )
            )
            for index in range(3)
        ]
        # Both directions: theirs join ours, ours join theirs.
        theirs.tell("join", 0, ours[0].address)
        theirs.tell("join", 1, ours[0].address)
        theirs.tell("join", 2, ours[1].address)
        names = {f"go{index}" for index in range(3)} | {f"py{index}" for index in range(3)}
        alive = dict.fromkeys(names, ALIVE)
        await until(lambda: all(states(g) == alive for g in ours), 10, "ours see all six")

        async def theirs_see() -> bool:
            return all([await theirs.members(index) == names for index in range(3)])

        await until(theirs_see, 10, "theirs see all six")

        theirs.tell("meta", 0, "hello")
        await until(
            lambda: any(m.name == "go0" and m.meta == b"hello" for m in ours[2].members()),
            5,
            "we see their meta",
        )
        await ours[1].set_tags({"a": "b"})
        await until(lambda: theirs.saw("update", "py1"), 5, "they see our meta")

        theirs.tell("leave", 2)
        await until(lambda: states(ours[0])["go2"] is LEFT, 10, "we see them leave")
        await ours[2].leave(5)
        await until(lambda: theirs.saw("leave", "py2"), 10, "they see us leave")
        theirs.tell("kill", 1)
        await until(lambda: states(ours[0]).get("go1") is DEAD, 30, "we find the dead one")
        assert states(ours[0])["go0"] is ALIVE
        await until(lambda: all(g.awareness == 0 for g in ours[:2]), 5, "our health is well")
