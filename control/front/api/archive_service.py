"""The archive over gRPC: an operator has collected what nothing names, or looks at what that would be."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from typing import Any

import grpc
import grpc.aio

from control.leader.garbage_collector import GarbageCollector
from shoal.v1 import archive_service_pb2 as v1
from shoal.v1 import archive_service_pb2_grpc as v1_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class ArchiveService(v1_grpc.ArchiveServiceServicer):
    """Answers operators; `garbage` collects."""

    def __init__(self, garbage: GarbageCollector) -> None:
        self._garbage = garbage

    async def CollectGarbage(
        self, request: v1.CollectGarbageRequest, context: Context
    ) -> v1.CollectGarbageResponse:
        """Make one pass over the archive, after one that is on its way."""
        found = await self._garbage.collect(dry_run=request.dry_run)
        return v1.CollectGarbageResponse(
            objects=found.objects,
            size_bytes=found.size_bytes,
            uploads=found.uploads,
            keys=found.keys,
        )
