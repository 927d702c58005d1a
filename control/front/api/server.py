"""The gRPC server of a controller: its services, health and reflection."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, cast

import grpc.aio

from control.front.access.client_versions import ClientVersionInterceptor
from control.front.access.interceptor import AccessInterceptor
from control.front.api.archive_service import ArchiveService
from control.front.api.history_service import HistoryService
from control.front.api.identity_service import IdentityService
from control.front.api.keys_service import KeysService
from control.front.api.lane_relay import LaneRelay
from control.front.api.nodes_service import NodesService
from control.front.api.overview_service import OverviewService
from control.front.api.pipelines_service import PipelinesService
from control.front.api.records_service import RecordsService
from control.front.api.secrets_service import SecretsService
from control.front.api.specs_service import SpecsService
from control.front.api.stored_pipelines_service import StoredPipelinesService
from control.front.rpc_status import refusal
from control.front.sessions.service import SessionService
from services.runtime.rpc import ErrorInterceptor, bind, server_options
from shoal.channel import SESSION
from shoal.credentials import Credentials
from shoal.protocol_version import API
from shoal.v1 import (
    archive_service_pb2_grpc,
    history_service_pb2_grpc,
    identity_service_pb2_grpc,
    keys_service_pb2_grpc,
    nodes_service_pb2_grpc,
    overview_service_pb2_grpc,
    pipelines_service_pb2_grpc,
    records_service_pb2_grpc,
    secrets_service_pb2_grpc,
    session_service_pb2_grpc,
    specs_service_pb2_grpc,
    stored_pipelines_service_pb2_grpc,
)
from shoal.version import VERSION

# Neither ships types; what is used of them stands in this module alone.
_HEALTH: Final = cast("Any", import_module("grpc_health.v1.health"))
_HEALTH_PB2: Final = cast("Any", import_module("grpc_health.v1.health_pb2"))
_HEALTH_GRPC: Final = cast("Any", import_module("grpc_health.v1.health_pb2_grpc"))
_REFLECTION: Final = cast("Any", import_module("grpc_reflection.v1alpha.reflection"))

OVERALL = ""
"""Name under which health tells of the server as a whole."""

SERVICES: Sequence[str] = (
    "shoal.v1.PipelinesService",
    "shoal.v1.NodesService",
    "shoal.v1.KeysService",
    "shoal.v1.LanesService",
    "shoal.v1.RecordsService",
    "shoal.v1.SessionService",
    "shoal.v1.IdentityService",
    "shoal.v1.ArchiveService",
    "shoal.v1.SecretsService",
    "shoal.v1.HistoryService",
    "shoal.v1.OverviewService",
    "shoal.v1.SpecsService",
    "shoal.v1.StoredPipelinesService",
)


class ApiServer:
    """Listens from the moment it is made, so that its port is known; serves after `start`.

    Args:
        address: `host:port`, port 0 for a free one.
        identity: returns what the server proves, and which authorities a caller has to prove; None
            for a port in the clear.
        access: lets callers in; None lets all in, which is for a port in the clear alone.

    Raises:
        OSError: when the address cannot be had.
    """

    def __init__(
        self,
        address: str,
        identity: Callable[[], Credentials] | None = None,
        access: AccessInterceptor | None = None,
    ) -> None:
        asked = () if access is None else (access,)
        self._server = grpc.aio.server(
            interceptors=[
                ErrorInterceptor(refusal),
                *asked,
                ClientVersionInterceptor(API.said_by(VERSION)),
            ],
            options=server_options(SESSION),
        )
        self._health = _HEALTH.aio.HealthServicer()
        host, _, _ = address.rpartition(":")
        self.address = f"{host}:{bind(self._server, address, identity)}"

    async def start(
        self,
        pipelines: PipelinesService,
        nodes: NodesService,
        keys: KeysService,
        records: RecordsService,
        lanes: LaneRelay,
        sessions: SessionService,
        identities: IdentityService,
        archive: ArchiveService,
        secrets: SecretsService,
        history: HistoryService,
        overview: OverviewService,
        specs: SpecsService,
        stored: StoredPipelinesService,
    ) -> None:
        """Serve, and say so."""
        pipelines_service_pb2_grpc.add_PipelinesServiceServicer_to_server(pipelines, self._server)
        nodes_service_pb2_grpc.add_NodesServiceServicer_to_server(nodes, self._server)
        keys_service_pb2_grpc.add_KeysServiceServicer_to_server(keys, self._server)
        records_service_pb2_grpc.add_RecordsServiceServicer_to_server(records, self._server)
        self._server.add_generic_rpc_handlers((lanes.handlers(),))
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, self._server)
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(identities, self._server)
        archive_service_pb2_grpc.add_ArchiveServiceServicer_to_server(archive, self._server)
        secrets_service_pb2_grpc.add_SecretsServiceServicer_to_server(secrets, self._server)
        overview_service_pb2_grpc.add_OverviewServiceServicer_to_server(overview, self._server)
        history_service_pb2_grpc.add_HistoryServiceServicer_to_server(history, self._server)
        specs_service_pb2_grpc.add_SpecsServiceServicer_to_server(specs, self._server)
        stored_pipelines_service_pb2_grpc.add_StoredPipelinesServiceServicer_to_server(
            stored, self._server
        )
        _HEALTH_GRPC.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, _HEALTH_PB2.DESCRIPTOR.services_by_name["Health"].full_name)
        _REFLECTION.enable_server_reflection((*names, _REFLECTION.SERVICE_NAME), self._server)
        await self._server.start()
        for name in (OVERALL, *SERVICES):
            await self._health.set(name, _HEALTH_PB2.HealthCheckResponse.SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Say that it stops, take no more calls, and give those that run a little time."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
