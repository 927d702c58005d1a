"""The records of pipelines over gRPC: what the nodes' stream workers have, relayed."""
# ruff: noqa: N802 - names and arguments are the contract's

from typing import Any

import grpc.aio

from control.front.api.node_streams import NodeStreams
from control.front.api.request import job_of
from control.front.api.tapping import Tapping, TapQuery
from control.front.control_plane import ControlPlane
from shoal.v1 import records_service_pb2 as v1
from shoal.v1 import records_service_pb2_grpc as v1_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class RecordsService(v1_grpc.RecordsServiceServicer):
    """Relays records between people and stream workers, so that people reach the controller only.

    Args:
        plane: knows where jobs are.
        streams: reaches the workers of nodes.
    """

    def __init__(self, plane: ControlPlane, streams: NodeStreams) -> None:
        self._plane = plane
        self._streams = streams

    # gRPC takes a coroutine that writes as well as a generator; the stubs know the generator only.
    async def TapPort(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: v1.TapPortRequest, context: Context
    ) -> None:
        """Show some of the records of a port until its stream ends."""
        query = TapQuery(job_of(request.name, request.namespace), request.port, request.wish)
        await Tapping(self._plane, self._streams, query, context.write).run()
