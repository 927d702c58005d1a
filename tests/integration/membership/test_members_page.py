"""E10: the JSON of the original cluster program, and the dead ones on request."""

from __future__ import annotations

import time

import aiohttp

from services.membership.message import SwimState
from services.membership.preset import LOCAL
from services.membership.web import MembersPage
from tests.kit.gossip import running, states
from tests.kit.until import until


async def test_e10_members_and_info() -> None:
    async with (
        running("a", preset=LOCAL) as first,
        MembersPage(first, clock=time.monotonic) as page,
        aiohttp.ClientSession(f"http://127.0.0.1:{page.port}") as session,
    ):
        async with running("b", preset=LOCAL, seeds=(str(first.address),)) as second:
            await until(lambda: len(states(first)) == 2, 5, "both are known")
            place = {"Name": "b", "IP": "127.0.0.1", "Port": second.address.port}
            own = {"Name": "a", "IP": "127.0.0.1", "Port": first.address.port}
            async with session.get("/members") as answer:
                assert await answer.json() == {"Active": [own, place]}
            async with session.get("/info") as answer:
                assert await answer.json() == own
        await until(lambda: states(first)["b"] is SwimState.DEAD, 30, "the other is dead")
        async with session.get("/members") as answer:
            assert await answer.json() == {"Active": [own]}
        async with session.get("/members?all=true") as answer:
            said = await answer.json()
        assert [row["Name"] for row in said["Active"]] == ["a"]
        (dead,) = said["Dead"]
        assert dead["Name"] == "b"
        assert dead["Incarnation"] > 1
        assert dead["SinceSeconds"] >= 0
        assert said["Suspect"] == said["Left"] == []
