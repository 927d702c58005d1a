"""Refuses clients of ours that no protocol of requests is shared with, before a service sees anything of a call.

A client of ours says which protocols it speaks as its user agent (`shoal.protocol_version`). One that says none is
another program on the API, such as grpcurl or a gateway, and is let in: it keeps to the contract by itself.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import grpc
import grpc.aio

from services.runtime.rpc import KINDS, Method, rpc_error
from shoal.protocol_version import (
    API,
    LinkEnd,
    NoCommonProtocolError,
    Protocols,
    agreed,
    from_text,
)

_USER_AGENT = "user-agent"


class ClientVersionInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls in whose client can work with this build, and all that do not say.

    Args:
        ours: what this build speaks.
    """

    def __init__(self, ours: Protocols) -> None:
        self._here = LinkEnd(
            "the controller",
            ours,
            "upgrade it, or use a client of its version",
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Method]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Method:
        """Put the question before the implementation of one method."""
        method = cast("Any", await continuation(handler_call_details))
        why = self._no_common(handler_call_details)
        if method is None or not why:
            return cast("Method", method)

        async def refuse(_request: object, _context: object) -> None:
            raise rpc_error(grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL", why)

        kind = next(kind for kind in KINDS if getattr(method, kind) is not None)
        return cast("Method", method._replace(**{kind: refuse}))

    def _no_common(self, call: grpc.HandlerCallDetails) -> str:
        metadata: Iterable[tuple[str, object]] = cast("Any", call).invocation_metadata or ()
        words = dict(metadata).get(_USER_AGENT, "")
        said = from_text(words) if isinstance(words, str) else None
        if said is None:
            return ""
        client = LinkEnd("this client", said, "upgrade it")
        try:
            agreed(API, client, self._here)
        except NoCommonProtocolError as error:
            return str(error)
        return ""
