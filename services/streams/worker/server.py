"""The two gRPC servers of a stream worker: for other nodes, and for the agent beside it."""

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from services.runtime.log import fields
from services.runtime.process import StartRefusedError
from services.runtime.rpc import STREAM_MESSAGE_BYTES_MAX, ErrorInterceptor, bind, server_options
from services.runtime.stream_address import told
from services.streams.plan import StreamLimits
from services.streams.worker.agent_service import AgentService
from services.streams.worker.keeper_ports import KeeperPorts
from services.streams.worker.lane_service import LaneService
from services.streams.worker.node_proof import NodeProof
from services.streams.worker.pull import Channels
from services.streams.worker.spool import FileSpool
from services.streams.worker.stream_worker import StreamWorker, WorkerLinks
from shoal.channel import SESSION, STREAM
from shoal.credentials import CredentialsError
from shoal.v1.streams_service_pb2_grpc import add_StreamWorkerServiceServicer_to_server

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the worker listens, and what its node proves.

    `identity` is the agent's folder of credentials, None in a cluster without identity. With `clear`
    lanes are in the clear all the same, and their tickets are checked.
    """

    socket: Path
    listen: str
    advertise: str
    limits: StreamLimits
    identity: Path | None = None
    clear: bool = False


async def serve(settings: Settings) -> None:
    """Serve until cancelled.

    Raises:
        StartRefusedError: Another worker answers on the socket, an address cannot be had, or the
            identity cannot be read.
    """
    _claim(settings.socket)
    proof = _proof(settings)
    async with contextlib.AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        lanes = grpc.aio.server(
            options=server_options(STREAM, message_bytes_max=STREAM_MESSAGE_BYTES_MAX)
        )
        orders = grpc.aio.server(options=server_options(SESSION), interceptors=[ErrorInterceptor()])
        try:
            sealed = proof if proof is not None and proof.proven else None
            port = bind(
                lanes, settings.listen, None if sealed is None else lambda: sealed.credentials
            )
            bind(orders, f"unix:{settings.socket}")
        except OSError as error:
            raise StartRefusedError(str(error)) from error
        channels = Channels(proof)
        links = WorkerLinks(channels, KeeperPorts(), lambda path: FileSpool(Path(path)))
        address = told(settings.advertise, port, clear=proof is not None and settings.clear)
        worker = StreamWorker(address, settings.limits, tasks, links)
        lanes.add_generic_rpc_handlers((LaneService(worker, proof).handlers(),))
        add_StreamWorkerServiceServicer_to_server(AgentService(worker, proof, channels), orders)
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


def _proof(settings: Settings) -> NodeProof | None:
    if settings.identity is None:
        return None
    try:
        return NodeProof.read(settings.identity, proven=not settings.clear)
    except CredentialsError as error:
        raise StartRefusedError(f"the identity of the node cannot be used: {error}") from error


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
