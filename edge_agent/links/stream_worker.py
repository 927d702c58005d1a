"""The link from an agent to its stream worker: the calls of `StreamWorkerService`, and how they are had."""

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from edge_agent.keeper.client import StartRequest
from services.runtime.stream_address import told
from shoal.channel import USER, channel_options, open_channel
from shoal.v1 import streams_service_pb2 as v1
from shoal.v1 import streams_service_pb2_grpc

HELPER: Final = "stream-worker"
"""Name of the process at the keeper."""


class AttemptsWatch(Protocol):
    """What is used of the watching call."""

    async def read(self) -> v1.WatchAttemptsResponse:
        """The next message, or `grpc.aio.EOF`."""
        ...

    def cancel(self) -> bool:
        """End the call at once."""
        ...


class StreamWorkerStub(Protocol):
    """What is used of the stub; every call raises `grpc.aio.AioRpcError` as gRPC's does."""

    def Attach(self, request: v1.AttachRequest, *, timeout: float) -> Awaitable[object]:  # noqa: N802
        """Take the ports of an attempt over."""
        ...

    def UpdateLanes(self, request: v1.UpdateLanesRequest, *, timeout: float) -> Awaitable[object]:  # noqa: N802
        """Learn where the peers of an attempt are now."""
        ...

    def Conclude(self, request: v1.ConcludeRequest, *, timeout: float) -> Awaitable[object]:  # noqa: N802
        """Learn how a program ended."""
        ...

    def Detach(self, request: v1.DetachRequest, *, timeout: float) -> Awaitable[object]:  # noqa: N802
        """Drop an attempt."""
        ...

    def UpdateTrust(self, request: v1.UpdateTrustRequest, *, timeout: float) -> Awaitable[object]:  # noqa: N802
        """Trust something else from now on."""
        ...

    def WatchAttempts(  # noqa: N802
        self, request: v1.WatchAttemptsRequest, *, wait_for_ready: bool
    ) -> AttemptsWatch:
        """Hear of every attempt."""
        ...


class StreamWorkerDoor(Protocol):
    """How a stream worker is started and reached."""

    @property
    def log_path(self) -> Path:
        """Where it says what went wrong, for people."""
        ...

    @property
    def advertise(self) -> str:
        """Host under which other nodes reach it; empty for the one it listens on."""
        ...

    @property
    def address_ahead(self) -> str:
        """Where one will listen, as other nodes are told; empty where only it can say that."""
        ...

    @property
    def made(self) -> str:
        """The words with which one is started now: the version first, then its settings."""
        ...

    def prepare(self, last_address: str) -> StartRequest:
        """Make way for a new one, and return what the keeper is asked for.

        Args:
            last_address: where the one before listened, `host:port`; empty where none did.
        """
        ...

    def connect(self) -> contextlib.AbstractAsyncContextManager[StreamWorkerStub]:
        """Open a connection, whether a stream worker listens yet or not."""
        ...


@dataclass(frozen=True, slots=True)
class StreamWorkerSocket:
    """A stream worker behind a Unix socket: where it listens, its variables, and its version.

    `listen` is `host:port` for other nodes, `folder` its working folder. `identity` is the folder with
    what the node proves, None in a cluster without identity, and `security` how it uses it. `free` says
    that the port of `listen` was found free, so that the address may be told before anything listens.
    """

    socket_path: Path
    listen: str
    advertise: str
    folder: Path
    environ: Mapping[str, str]
    version: str
    identity: Path | None = None
    security: str = "mutual"
    free: bool = False

    @property
    def address_ahead(self) -> str:
        """Where one will listen, if the port is fixed and free, and the host is known."""
        port = int(self.listen.rpartition(":")[2])
        if not (self.free and port and self.advertise):
            return ""
        clear = self.identity is not None and self.security == "ticket"
        return told(self.advertise, port, clear=clear)

    @property
    def made(self) -> str:
        """The words with which one is started now: the version first, then its settings."""
        words = f"{self.version} --streams {self.listen} --advertise {self.advertise}"
        return words if self.identity is None else f"{words} --streams-security {self.security}"

    @property
    def log_path(self) -> Path:
        """Its log, in the folder."""
        return self.folder / "stream-worker.log"

    def prepare(self, last_address: str) -> StartRequest:
        """Remove the socket of the one before; a free port that it had found is taken again."""
        self.socket_path.unlink(missing_ok=True)
        listen = self.listen
        host, _, port = listen.rpartition(":")
        if port == "0" and last_address:
            listen = f"{host}:{last_address.rpartition(':')[2]}"
        return StartRequest(
            attempt=HELPER,
            argv=[
                sys.executable,
                "-m",
                "services.streams.worker",
                "--socket",
                str(self.socket_path),
                "--listen",
                listen,
                *(("--advertise", self.advertise) if self.advertise else ()),
                *self._identity_words(),
            ],
            # gRPC's core would write a line for each stranger that dials; our log says it in words.
            env={"GRPC_VERBOSITY": "NONE", **self.environ},
            cwd=self.folder,
            stdout=self.log_path,
            stderr=self.log_path,
            made=self.made,
        )

    def _identity_words(self) -> tuple[str, ...]:
        if self.identity is None:
            return ()
        return ("--identity", str(self.identity.absolute()), "--security", self.security)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[StreamWorkerStub]:
        """Open a gRPC channel to the socket."""
        options = channel_options(USER)
        target = f"unix:{self.socket_path.absolute()}"
        async with open_channel(target, options) as channel:
            stub = streams_service_pb2_grpc.StreamWorkerServiceStub(channel)
            yield cast("StreamWorkerStub", stub)
