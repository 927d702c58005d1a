"""The controller's own series of a week, over gRPC."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio

from control.front.access.checked_call import bound_to
from control.front.history import SLOT_SECONDS, History
from services.runtime.rpc import rpc_error
from shoal.v1 import history_service_pb2 as v1
from shoal.v1 import history_service_pb2_grpc as v1_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class HistoryService(v1_grpc.HistoryServiceServicer):
    """Answers dashboards; `history` has the series."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def GetHistory(
        self, request: v1.GetHistoryRequest, context: Context
    ) -> v1.GetHistoryResponse:
        """Return all series, which tell of all namespaces."""
        if namespace := bound_to(context):
            raise rpc_error(
                grpc.StatusCode.PERMISSION_DENIED,
                "OTHER_NAMESPACE",
                f"the history tells of all namespaces, and this caller is bound to {namespace}: ask with an "
                "identity that is bound to none",
            )
        begin, series = await self._history.series()
        answer = v1.GetHistoryResponse(
            slot_seconds=SLOT_SECONDS,
            series=[v1.HistorySeries(name=name, values=values) for name, values in series.items()],
        )
        answer.begin_time.FromDatetime(datetime.fromtimestamp(begin, UTC))
        return answer
