"""Takes agents' streams and gives each a session of its own."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from collections.abc import AsyncIterator, Callable

from control.front.control_plane import ControlPlane
from control.front.log_folder import LogFolder
from control.front.rpc_status import refusing
from control.front.sessions.addresses import Addresses
from control.front.sessions.session_server import Context, SessionServer, SessionSettings
from control.front.sessions.worker_watch import WorkerWatch
from shoal.v1 import session_service_pb2 as v1
from shoal.v1 import session_service_pb2_grpc as v1_grpc


class SessionService(v1_grpc.SessionServiceServicer):
    """Serves agents.

    Args:
        plane: records what agents say, and knows what should run.
        logs: where logs go.
        addresses: presigns.
        settings: what agents are told.
        workers: looks after stream workers whose session broke.
        clock: seconds on a monotonic clock.
        new_id: tells sessions apart.
    """

    def __init__(
        self,
        *,
        plane: ControlPlane,
        logs: LogFolder,
        addresses: Addresses,
        settings: SessionSettings,
        workers: WorkerWatch,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._plane = plane
        self._logs = logs
        self._addresses = addresses
        self._settings = settings
        self._workers = workers
        self._clock = clock
        self._new_id = new_id

    # gRPC takes a coroutine that writes as well as a generator; the stubs know the generator only.
    async def Connect(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[v1.ConnectRequest], context: Context
    ) -> None:
        """Serve one agent until its stream ends."""
        session = SessionServer(
            context,
            self._new_id(),
            plane=self._plane,
            logs=self._logs,
            addresses=self._addresses,
            settings=self._settings,
            workers=self._workers,
            clock=self._clock,
        )
        with refusing():
            await session.run()
