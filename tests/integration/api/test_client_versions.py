"""Clients of other builds: refused in a sentence where no protocol of requests is shared, before anything happens."""

from pathlib import Path
from types import MappingProxyType

import grpc.aio
import pytest

from control.controller import ControllerAddresses
from control.front.api import server
from shoal import connection
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.protocol_version import LinkKind
from shoal.spec import Job, Pipeline
from shoal.v1.nodes_service_pb2 import ListNodesRequest
from shoal.v1.nodes_service_pb2_grpc import NodesServiceStub
from tests.kit.running_controller import running_controller

LATER = LinkKind("requests", 9, MappingProxyType({9: "of a later build"}))
ONE = Pipeline("one", (Job("a", ("true",)),))


async def test_a_client_of_a_later_build_is_refused_before_anything_happens(
    controller: ControllerAddresses, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "API", LATER)
    async with Client(controller.grpc) as later:
        with pytest.raises(ShoalError) as refused:
            await later.submit(ONE)
        assert refused.value.reason == "PROTOCOL"
        assert "the controller is the older one; upgrade it, or use a client of its version" in str(
            refused.value
        )
        assert "speaks protocol 9 of requests" in str(refused.value)
        with pytest.raises(ShoalError, match="the controller is the older one"):
            await anext(later.watch_nodes())
    assert [one.name async for one in client.list()] == []


async def test_a_controller_of_a_later_build_refuses_this_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "API", LATER)
    async with running_controller(tmp_path) as addresses, Client(addresses.grpc) as client:
        with pytest.raises(ShoalError, match="this client is the older one; upgrade it"):
            await client.nodes()


async def test_another_program_on_the_api_is_not_asked_for_a_protocol(
    controller: ControllerAddresses,
) -> None:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        answer = await NodesServiceStub(channel).ListNodes(ListNodesRequest(), timeout=20)
        assert list(answer.nodes) == []
