"""The two gRPC servers of a stream worker: for other nodes, and for the agent beside it."""

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from services.runtime.address import joined
from services.runtime.log import fields
from services.runtime.process import StartRefusedError
from services.runtime.rpc import STREAM_MESSAGE_BYTES_MAX, ErrorInterceptor, bind, server_options
from services.streams.plan import StreamLimits
from services.streams.worker.agent_service import AgentService
from services.streams.worker.keeper_ports import KeeperPorts
from services.streams.worker.lane_service import LaneService
from services.streams.worker.pull import Channels
from services.streams.worker.spool import FileSpool
from services.streams.worker.stream_worker import StreamWorker, WorkerLinks
from shoal.channel import SESSION, STREAM
from shoal.v1.streams_service_pb2_grpc import add_StreamWorkerServiceServicer_to_server

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the worker listens."""

    socket: Path
    listen: str
    advertise: str
    limits: StreamLimits


async def serve(settings: Settings) -> None:
    """Serve until cancelled.

    Raises:
        StartRefusedError: Another worker answers on the socket, or an address cannot be had.
    """
    _claim(settings.socket)
    async with contextlib.AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        lanes = grpc.aio.server(
            options=server_options(STREAM, message_bytes_max=STREAM_MESSAGE_BYTES_MAX)
        )
        orders = grpc.aio.server(options=server_options(SESSION), interceptors=[ErrorInterceptor()])
        try:
            port = bind(lanes, settings.listen)
            bind(orders, f"unix:{settings.socket}")
        except OSError as error:
            raise StartRefusedError(str(error)) from error
        links = WorkerLinks(Channels(), KeeperPorts(), lambda path: FileSpool(Path(path)))
        worker = StreamWorker(joined(settings.advertise, port), settings.limits, tasks, links)
        lanes.add_generic_rpc_handlers((LaneService(worker).handlers(),))
        add_StreamWorkerServiceServicer_to_server(AgentService(worker), orders)
        await lanes.start()
        await orders.start()
        LOG.info(
            "serving", extra=fields(address=worker.stream_address, socket=str(settings.socket))
        )
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            worker.close()
            await orders.stop(grace=0)
            await lanes.stop(grace=0)
            settings.socket.unlink(missing_ok=True)


def _claim(path: Path) -> None:
    """Make room for the socket, unless a worker lives there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise StartRefusedError(f"a stream worker already answers at {path}")
