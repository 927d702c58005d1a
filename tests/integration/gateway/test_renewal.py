"""The identity of a gateway is renewed in time, and no watch is cut by it."""

import asyncio
import contextlib
import datetime as dt
import time
from functools import partial
from pathlib import Path

from services.gateway.contract import OFFERED
from services.gateway.gateway_counts import GatewayCounts
from services.gateway.upstream import Upstream
from shoal.cli.identity_folder import credentials_in
from shoal.credentials import Credentials
from shoal.identity import Role
from shoal.v1 import nodes_service_pb2 as v1
from tests.integration.gateway.conftest import gateway_identity
from tests.kit.controller_credentials import credentials_of
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

WATCH = OFFERED["/shoal.v1.NodesService/WatchNodes"].upstream
LIST = OFFERED["/shoal.v1.NodesService/ListNodes"].upstream


async def test_a_watch_goes_on_over_renewals_of_the_identity(tmp_path: Path) -> None:
    state = tmp_path / "controller"
    async with running_controller(state, insecure=False) as addresses:
        folder = gateway_identity(state, tmp_path / "identity")
        first = credentials_in(folder)
        # Most of its time is over for the gateway, so it renews; the controller has the real time.
        late = first.end - dt.timedelta(days=1)
        upstream = Upstream(
            addresses.grpc, folder, 20.0, lambda: late, time.monotonic, GatewayCounts(), 0.05
        )
        ready = asyncio.Event()
        running = asyncio.create_task(upstream.run(ready.set))
        await asyncio.wait_for(ready.wait(), 60)
        found: list[v1.WatchNodesResponse] = []

        async def watch() -> None:
            stream = upstream.stream(WATCH, v1.WatchNodesRequest(), "ann")
            async with contextlib.aclosing(stream) as answers:
                async for answer in answers:
                    found.append(answer)  # noqa: PERF401 - one by one, as they come

        def renewed(before: Credentials | None) -> bool:
            return upstream.credentials != before

        def shown(name: str) -> bool:
            return any(one.node.name == name for one in found)

        watching = asyncio.create_task(watch())
        await until(lambda: any(one.HasField("snapshot_end") for one in found), 20, "the snapshot")
        for number in range(3):
            await until(partial(renewed, upstream.credentials), 60, "a renewal")
            name = f"cam-{number}"
            cam = credentials_of(state, Role.NODE, name)
            async with connected_agent(addresses.grpc, name, credentials=cam):
                await until(partial(shown, name), 20, "the news")
            answer = await upstream.call(LIST, v1.ListNodesRequest(), "ann")
            assert len(answer.nodes) == number + 1
        assert not watching.done()
        begun = sum(one.HasField("snapshot_end") for one in found)
        assert begun == 1, "the watch was begun anew"
        assert credentials_in(folder) != first
        for task in (watching, running):
            task.cancel()
        await asyncio.wait((watching, running), timeout=60)
