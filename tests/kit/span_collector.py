"""A collector of OpenTelemetry: what `Export` of OTLP gets over a real gRPC server, kept to be looked at."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as v1
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as v1_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True, slots=True)
class TakenSpan:
    """A span as it came."""

    service: str
    instance: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_nanos: int
    end_nanos: int
    attributes: dict[str, Any]
    failed: str


class SpanCollector(v1_grpc.TraceServiceServicer):
    """Takes spans, or refuses them with a status.

    Attributes:
        requests: how many there were, refused ones too.
        refusal: what each request is refused with; None for taking it.
        rejects: how many spans of each request it says that it does not take.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.refusal: grpc.StatusCode | None = None
        self.rejects = 0
        self.port = 0
        self._taken: dict[tuple[str, str], TakenSpan] = {}
        self.repeated = 0
        self._server: grpc.aio.Server | None = None

    async def Export(  # noqa: N802 - the name is the contract's
        self, request: v1.ExportTraceServiceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> v1.ExportTraceServiceResponse:
        """Take spans."""
        self.requests += 1
        if self.refusal is not None:
            await context.abort(self.refusal, "the test says so")
        for resource in request.resource_spans:
            of = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._take(of, span)
        answer = v1.ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return answer

    def _take(self, of: dict[str, str], span: trace_pb2.Span) -> None:
        failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
        taken = TakenSpan(
            of["service.name"],
            of.get("service.instance.id", ""),
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.name,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            {
                one.key: getattr(one.value, one.value.WhichOneof("value") or "")
                for one in span.attributes
            },
            (span.status.message or "failed") if failed else "",
        )
        key = taken.trace_id, taken.span_id
        self.repeated += key in self._taken
        self._taken[key] = taken

    def spans(self, trace_id: str = "") -> list[TakenSpan]:
        """What was taken, each span once, of one trace or of all."""
        return [one for one in self._taken.values() if trace_id in {"", one.trace_id}]

    async def start(self, port: int = 0) -> None:
        """Serve on loopback; again on the same port after `stop`."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        v1_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port or self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """End at once, as a kill would."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def span_collector() -> AsyncIterator[SpanCollector]:
    """Run a collector until the end of the block."""
    collector = SpanCollector()
    await collector.start()
    try:
        yield collector
    finally:
        await collector.stop()
