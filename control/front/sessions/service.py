"""Takes agents' streams and gives each a session of its own."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from collections.abc import AsyncIterator, Callable

from control.front.sessions.session_server import Context, SessionServer
from shoal.v1 import session_service_pb2 as v1
from shoal.v1 import session_service_pb2_grpc as v1_grpc


class SessionService(v1_grpc.SessionServiceServicer):
    """Serves agents.

    Args:
        session: makes the session of a stream.
    """

    def __init__(self, session: Callable[[Context], SessionServer]) -> None:
        self._session = session

    # gRPC takes a coroutine that writes as well as a generator; the stubs know the generator only.
    async def Connect(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[v1.ConnectRequest], context: Context
    ) -> None:
        """Serve one agent until its stream ends."""
        await self._session(context).run()
