"""The contract as endpoints of Connect, made of the descriptors: there is no handler for any one method.

Rule: a method is offered if its client sends one message; what a client streams, no browser can. A call of a method
goes through `door` first, then to the controller. A method that reads and is answered once can be asked by GET, too;
the table of rules says which do.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connectrpc.compat import google_protobuf_binary_codec
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf import message_factory
from google.protobuf.json_format import Parse
from google.protobuf.message import Message

from services.gateway.door import Door
from services.gateway.message_json import json_of
from services.gateway.refusal import connect_error
from services.gateway.upstream import Upstream, UpstreamMethod
from services.identity.access.rule import Rule, Verb
from services.identity.access.rules import RULES
from shoal.errors import ShoalError
from shoal.v1 import (
    history_service_pb2,
    nodes_service_pb2,
    overview_service_pb2,
    pipelines_service_pb2,
    records_service_pb2,
    secrets_service_pb2,
    specs_service_pb2,
    stored_pipelines_service_pb2,
)

_FILES: Final[Sequence[Any]] = (
    history_service_pb2,
    nodes_service_pb2,
    overview_service_pb2,
    pipelines_service_pb2,
    records_service_pb2,
    secrets_service_pb2,
    specs_service_pb2,
    stored_pipelines_service_pb2,
)
"""What people and dashboards call. Identities, keys and the archive are an operator's, and no gateway acts as one."""


@dataclass(frozen=True, slots=True)
class OfferedMethod:
    """A method that the gateway offers.

    Attributes:
        path: `/shoal.v1.NodesService/ListNodes`.
        service: `shoal.v1.NodesService`.
        name: `ListNodes`.
        request: class of its requests.
        response: class of its answers.
        streams: whether it answers with a stream.
        rule: what a call takes.
    """

    path: str
    service: str
    name: str
    request: type[Message]
    response: type[Message]
    streams: bool
    rule: Rule

    @property
    def safe(self) -> bool:
        """Whether it changes nothing and is answered once, so that a GET may ask for it."""
        return not self.streams and self.rule.verb in {Verb.READ, Verb.KNOW}

    @property
    def upstream(self) -> UpstreamMethod:
        """How the controller is called."""
        return UpstreamMethod(self.path, self.response, self.safe)


def _offered() -> Iterator[OfferedMethod]:
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if not method.client_streaming:
                    path = f"/{service.full_name}/{method.name}"
                    yield OfferedMethod(
                        path,
                        service.full_name,
                        method.name,
                        message_factory.GetMessageClass(method.input_type),
                        message_factory.GetMessageClass(method.output_type),
                        method.server_streaming,
                        RULES[path],
                    )


OFFERED: Final[Mapping[str, OfferedMethod]] = {method.path: method for method in _offered()}
"""By their paths."""


class _CompactJson:
    """JSON on one line; unknown fields are taken for those of a newer client."""

    def name(self) -> str:
        return "json"

    def encode(self, message: Message) -> bytes:
        return json_of(message).encode()

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> Message:
        return Parse(bytes(data), message_class(), ignore_unknown_fields=True)


class ContractApp(ConnectASGIApplication[None]):
    """Serves the contract.

    Args:
        door: lets callers in.
        upstream: calls the controller.
        request_bytes: most that a request may have.
    """

    def __init__(self, door: Door, upstream: Upstream, request_bytes: int) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - its endpoints have no types
            service=None,
            endpoints=lambda _: {
                one.path: _endpoint(one, door, upstream) for one in OFFERED.values()
            },
            interceptors=[door],
            read_max_bytes=request_bytes,
            codecs=[google_protobuf_binary_codec(), _CompactJson()],
        )

    @property
    def path(self) -> str:
        """Where it is mounted."""
        return "/"


def _endpoint(offered: OfferedMethod, door: Door, upstream: Upstream) -> Any:
    method = offered.upstream
    info = MethodInfo(
        name=offered.name,
        service_name=offered.service,
        input=offered.request,
        output=offered.response,
        idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS
        if offered.safe
        else IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.SERVER_STREAM if offered.streams else StreamType.UNARY,
    )

    async def answer(request: Message, _: RequestContext[Any, Any]) -> Message:
        try:
            user = door.let_in(offered.rule, offered.path, request)
            return await upstream.call(method, request, user.name)  # type: ignore[no-any-return]
        except ShoalError as error:
            raise connect_error(error) from error

    async def show(request: Message, _: RequestContext[Any, Any]) -> AsyncIterator[Message]:
        try:
            user = door.let_in(offered.rule, offered.path, request)
            stream = upstream.stream(method, request, user.name)
            async with contextlib.aclosing(stream) as responses:
                async for response in responses:
                    yield response
        except asyncio.CancelledError as error:
            raise connect_error(door.watch().told(error)) from error
        except ShoalError as error:
            raise connect_error(error) from error

    if offered.streams:
        return Endpoint.server_stream(method=info, function=show)
    return Endpoint.unary(method=info, function=answer)
