"""A collector of OpenTelemetry, to which spans are sent by OTLP over gRPC.

Source: https://opentelemetry.io, "OTLP Specification": which failures may be tried again, and partial success.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final, Self
from urllib.parse import urlsplit

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.common.v1 import common_pb2 as common
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from services.traces.opening import TraceSender
from services.traces.span import Span
from services.traces.taker import CollectorAwayError, CollectorRefusedError
from shoal.channel import open_foreign_channel

_DEADLINE_SECONDS: Final = 10.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TRY_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Collector:
    """A connection to a collector; `async with` it.

    Args:
        url: `http://host:port`, or `https://host:port` for TLS with the authorities that gRPC believes.
        sender: what sends.
        deadline_seconds: how long a request may take.
    """

    def __init__(
        self, url: str, sender: TraceSender, *, deadline_seconds: float = _DEADLINE_SECONDS
    ) -> None:
        parts = urlsplit(url)
        self._channel = open_foreign_channel(parts.netloc, tls=parts.scheme == "https")
        # The stub that is generated for it has no types.
        self._export: grpc.aio.UnaryUnaryMultiCallable[
            collector.ExportTraceServiceRequest, collector.ExportTraceServiceResponse
        ] = self._channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=collector.ExportTraceServiceRequest.SerializeToString,
            response_deserializer=collector.ExportTraceServiceResponse.FromString,
        )
        self._sender = sender
        self._deadline_seconds = deadline_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def send(self, spans: Sequence[Span]) -> int:
        """Send spans; returns how many of them it did not take, and never will.

        Raises:
            CollectorAwayError: it took none, and may take them later.
            CollectorRefusedError: it took none, and never will.
        """
        request = await asyncio.to_thread(_request, spans, self._sender)
        try:
            answer = await self._export(request, timeout=self._deadline_seconds)
        except grpc.aio.AioRpcError as error:
            said = f"{error.code().name}: {error.details()}"
            kind = CollectorAwayError if error.code() in _TRY_AGAIN else CollectorRefusedError
            raise kind(said) from error
        return int(answer.partial_success.rejected_spans)


def _request(spans: Iterable[Span], sender: TraceSender) -> collector.ExportTraceServiceRequest:
    by_node = sorted(spans, key=attrgetter("node"))
    return collector.ExportTraceServiceRequest(
        resource_spans=[
            _of_one_process(node, list(some), sender)
            for node, some in groupby(by_node, attrgetter("node"))
        ]
    )


def _of_one_process(node: str, spans: Sequence[Span], sender: TraceSender) -> otlp.ResourceSpans:
    found = otlp.ResourceSpans()
    attributes: dict[str, str | int | float] = {
        "service.namespace": "shoal",
        "service.name": "shoal-agent" if node else "shoal-controller",
        "service.instance.id": node or sender.controller,
        "shoal.cluster": sender.cluster,
    }
    if node:
        attributes["host.name"] = node
    else:
        attributes["service.version"] = sender.version
    found.resource.attributes.extend(_pairs(attributes.items()))
    scope = found.scope_spans.add()
    scope.scope.name, scope.scope.version = "shoal", sender.version
    scope.spans.extend(map(_span, spans))
    return found


def _span(span: Span) -> otlp.Span:
    found = otlp.Span(
        trace_id=bytes.fromhex(span.context.trace_id),
        span_id=bytes.fromhex(span.context.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        name=span.name,
        kind=otlp.Span.SpanKind.ValueType(int(span.kind)),
        start_time_unix_nano=_nanos(span.start),
        end_time_unix_nano=_nanos(span.end),
        attributes=_pairs(span.attributes.items()),
        flags=1,
    )
    if span.failed:
        found.status.code = otlp.Status.STATUS_CODE_ERROR
        found.status.message = span.failed
    return found


def _pairs(attributes: Iterable[tuple[str, str | int | float]]) -> list[common.KeyValue]:
    return [common.KeyValue(key=key, value=_value(value)) for key, value in attributes]


def _value(value: str | float) -> common.AnyValue:
    match value:
        case str():
            return common.AnyValue(string_value=value)
        case int():
            return common.AnyValue(int_value=value)
        case float():
            return common.AnyValue(double_value=value)


def _nanos(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000
