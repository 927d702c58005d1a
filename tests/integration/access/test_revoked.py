"""A certificate that is revoked: what its caller has open ends, and nothing new begins."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.credentials import Credentials
from shoal.identity import Role
from shoal.identity_view import IdentityView
from shoal.join_token import parse_token
from shoal.joining import join
from tests.integration.access.conftest import Cluster
from tests.integration.access.test_callers import PIPELINE, first, refused
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

SOON_SECONDS = 10.0
"""Ten times what is promised."""
THREADS = ThreadPoolExecutor(4)


@dataclass(frozen=True)
class Joined:
    """A controller, and a way to join it."""

    cluster: Cluster
    newcomers: str
    operator: Client
    words: list[str] = field(default_factory=list[str])

    async def join(self, role: Role, name: str, namespace: str = "") -> Credentials:
        word, _ = await self.operator.create_token(role, name_pattern=name, namespace=namespace)
        self.words.append(word)
        call = partial(join, self.newcomers, parse_token(word), name)
        return (await asyncio.get_running_loop().run_in_executor(THREADS, call)).credentials


@pytest.fixture
async def joined(tmp_path: Path) -> AsyncIterator[Joined]:
    async with running_controller(
        tmp_path / "c", insecure=False, newcomers="127.0.0.1:0"
    ) as addresses:
        cluster = Cluster(addresses.grpc, tmp_path / "c")
        async with cluster.client(Role.OPERATOR) as operator:
            yield Joined(cluster, addresses.newcomers, operator)


async def test_a_watch_of_a_revoked_viewer_ends_at_once_and_no_call_follows(joined: Joined) -> None:
    credentials = await joined.join(Role.VIEWER, "ann", "lab")
    async with Client(
        joined.cluster.address, namespace="lab", credentials=credentials, patience_seconds=1
    ) as viewer:
        watching = viewer.watch()
        await first(watching)
        ended = asyncio.create_task(refused(first(watching)))
        await joined.operator.revoke_identity(IdentityView(Role.VIEWER, "ann", "lab"))
        at = time.monotonic()
        error = await ended
        assert time.monotonic() - at < SOON_SECONDS
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "REVOKED")
        assert "viewer/lab/ann" in error.message
        error = await refused(viewer.nodes())
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "REVOKED")


async def test_the_session_of_a_revoked_node_ends_at_once(joined: Joined) -> None:
    credentials = await joined.join(Role.NODE, "cam-1")
    address = joined.cluster.address
    async with connected_agent(address, "cam-1", credentials=credentials) as agent:
        await joined.operator.revoke_identity(IdentityView(Role.NODE, "cam-1"))
        at = time.monotonic()
        await until(lambda: agent.ended, what="the end of the session")
        assert time.monotonic() - at < SOON_SECONDS
        assert agent.error is not None


async def test_a_watch_does_not_outlive_the_authority_of_its_caller(joined: Joined) -> None:
    credentials = await joined.join(Role.VIEWER, "ann")
    (old,) = await joined.operator.authorities()
    async with Client(
        joined.cluster.address, credentials=credentials, patience_seconds=1
    ) as viewer:
        watching = viewer.watch()
        await first(watching)
        made = await joined.operator.add_authority()
        await joined.operator.use_authority(made.fingerprint)
        ended = asyncio.create_task(refused(first(watching)))
        await joined.operator.remove_authority(old.fingerprint)
        error = await ended
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "AUTHORITY_REMOVED")
    async with joined.cluster.client(Role.OPERATOR) as again:
        assert [one.fingerprint for one in await again.authorities()] == [made.fingerprint]


async def test_what_others_have_open_goes_on_and_it_is_told_what_was_changed(
    joined: Joined,
) -> None:
    await joined.join(Role.VIEWER, "ann")
    word, token = await joined.operator.create_token(Role.VIEWER)
    await joined.operator.revoke_token(token.id)
    made = await joined.operator.add_authority()
    watching = joined.operator.watch()
    await first(watching)
    await joined.operator.revoke_identity(IdentityView(Role.VIEWER, "ann"))
    page = await joined.operator.events(page_size=1000)
    told = [json.loads(one.data_json) for one in page.events if one.type == "shoal.caller.called"]
    assert [(one["method"], one["name"]) for one in told] == [
        ("IdentityService.CreateToken", parse_token(joined.words[0]).id),
        ("IdentityService.CreateToken", token.id),
        ("IdentityService.RevokeToken", token.id),
        ("IdentityService.AddAuthority", made.fingerprint),
        ("IdentityService.RevokeIdentity", "viewer/ann"),
    ]
    assert not any(word.rpartition(".")[2] in event.data_json for event in page.events)
    submitted = (await joined.operator.submit(PIPELINE)).pipeline
    assert (await first(watching)).id == submitted.id
    await watching.aclose()
