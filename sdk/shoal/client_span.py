"""A call of a client as a span of its program, if that program makes any.

A library says what it does to the API of OpenTelemetry, and the program's own SDK keeps it. A program that has not
loaded that API pays one look at a dictionary.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

from shoal.trace_context import TraceContext
from shoal.version import VERSION

_API: Final = "opentelemetry.trace"


@contextlib.contextmanager
def client_span(name: str, address: str) -> Iterator[str]:
    """Let what happens within be a span; yields where in its trace that is, as a `traceparent`.

    That is empty in a program that makes no spans.

    Args:
        name: what is called, `service/method`.
        address: that of the controller, `host:port`.
    """
    if _API not in sys.modules:
        yield ""
        return
    from opentelemetry import trace  # noqa: PLC0415 - the program has it

    service, _, method = name.partition("/")
    attributes = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "server.address": address,
    }
    tracer = trace.get_tracer("shoal", VERSION)
    with tracer.start_as_current_span(
        name, kind=trace.SpanKind.CLIENT, attributes=attributes
    ) as span:
        here = span.get_span_context()
        if not here.is_valid:
            yield ""
            return
        sampled = here.trace_flags.sampled
        yield str(TraceContext(f"{here.trace_id:032x}", f"{here.span_id:016x}", sampled))
