"""Clients of other builds: refused in a sentence where no protocol of requests is shared, before anything happens."""

from typing import Any

import grpc.aio
import pytest

from control.controller import ControllerAddresses
from control.front.access.client_versions import ClientVersionInterceptor
from control.front.rpc_status import refusal
from services.runtime.rpc import ErrorInterceptor, bind, server_options
from shoal.channel import SESSION, USER, channel_options, open_channel
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.protocol_version import Protocols, as_text
from shoal.v1.nodes_service_pb2 import ListNodesRequest, WatchNodesRequest
from shoal.v1.nodes_service_pb2_grpc import (
    NodesServiceServicer,
    NodesServiceStub,
    add_NodesServiceServicer_to_server,
)

LATER = Protocols(9, 9, "9.0.0")


async def test_a_client_of_a_later_build_is_refused(controller: ControllerAddresses) -> None:
    options = [*channel_options(USER), ("grpc.primary_user_agent", as_text(LATER))]
    async with open_channel(controller.grpc, options) as channel:
        stub = NodesServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListNodes(ListNodesRequest(), timeout=20)
        said = refused.value.details() or ""
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "this client of version 9.0.0 speaks protocol 9 of requests" in said
        assert "the controller is the older one; upgrade it, or use a client of its version" in said
        with pytest.raises(grpc.aio.AioRpcError, match="the controller is the older one"):
            await stub.WatchNodes(WatchNodesRequest(), timeout=20).read()


async def test_a_controller_of_a_later_build_refuses_this_client() -> None:
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(refusal), ClientVersionInterceptor(LATER)],
        options=server_options(SESSION),
    )
    port = bind(server, "127.0.0.1:0")
    unimplemented: Any = NodesServiceServicer  # abstract to type checkers alone
    add_NodesServiceServicer_to_server(unimplemented(), server)
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}") as client:
            with pytest.raises(ShoalError) as refused:
                await client.nodes()
        assert refused.value.reason == "PROTOCOL"
        assert "this client is the older one; upgrade it" in refused.value.message
        assert "the controller of version 9.0.0 speaks protocol 9" in refused.value.message
    finally:
        await server.stop(0)


async def test_another_program_on_the_api_is_not_asked_for_a_protocol(
    controller: ControllerAddresses,
) -> None:
    async with grpc.aio.insecure_channel(controller.grpc) as channel:
        answer = await NodesServiceStub(channel).ListNodes(ListNodesRequest(), timeout=20)
        assert list(answer.nodes) == []
