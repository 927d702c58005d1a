"""E10: the JSON of the original cluster program, and the dead ones on request."""

from __future__ import annotations

import datetime as dt
import random
import time
from pathlib import Path

import aiohttp
import pytest

from services.identity.authority import serial_of
from services.identity.cluster_identity import ClusterIdentity
from services.membership.gossip_member import ClusterKeys, open_member
from services.membership.message import SwimState
from services.membership.preset import LOCAL
from services.membership.settings import GossipSettings
from services.membership.web import MembersPage
from shoal.tls import client_context
from tests.kit.gossip import running, states
from tests.kit.until import until


async def test_beyond_loopback_members_are_told_to_who_proves_an_identity(tmp_path: Path) -> None:
    identity = ClusterIdentity(
        tmp_path, "c1", "main", lambda: dt.datetime.now(dt.UTC), hosts=("127.0.0.1",)
    )
    proof = client_context(identity.bundle, web=False)
    settings = GossipSettings(name="a", gossip="127.0.0.1:0", members_http="0.0.0.0:0")
    revoked: set[int] = set()
    keys = ClusterKeys(
        tmp_path / "ring",
        (identity.gossip_key,),
        lambda: identity.credentials,
        revoked.__contains__,
    )
    async with (
        open_member(
            settings,
            {},
            clock=time.monotonic,
            wall=time.time,
            rng=random.Random(1),
            cluster_keys=keys,
        ) as member,
        aiohttp.ClientSession() as session,
    ):
        assert member is not None
        assert member.keys == (identity.gossip_key,)
        port = member.members_http.rpartition(":")[2]
        url = f"https://127.0.0.1:{port}/members"
        with pytest.raises(aiohttp.ClientError):
            await session.get(url, ssl=proof)
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))
        proof.load_cert_chain(tmp_path / "identity.pem")
        async with session.get(url, ssl=proof) as answer:
            assert [row["Name"] for row in (await answer.json())["Active"]] == ["a"]
        revoked.add(serial_of(identity.credentials.certificate))
        async with session.get(url, ssl=proof) as answer:
            assert answer.status == 403


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
