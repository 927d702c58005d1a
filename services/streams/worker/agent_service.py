"""What a stream worker serves to the agent beside it: orders about attempts, and news of them."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.runtime.rpc import rpc_error
from services.streams.events import Concluded
from services.streams.worker.keeper_ports import KeeperAwayError, KeeperRefusedError
from services.streams.worker.node_proof import NodeProof
from services.streams.worker.pull import Channels
from services.streams.worker.shell import AttemptStreamsShell
from services.streams.worker.stream_worker import StreamWorker
from shoal.credentials import CredentialsError
from shoal.names import AttemptRef
from shoal.protocol_version import STREAM_WORKER
from shoal.v1 import session_service_pb2
from shoal.v1 import streams_service_pb2 as v1
from shoal.v1.streams_service_pb2_grpc import StreamWorkerServiceServicer
from shoal.version import VERSION
from shoal.wire.assignment import decode_assignment
from shoal.wire.attempt import decode_attempt_ref
from shoal.wire.fields import each
from shoal.wire.lane import decode_lane
from shoal.wire.protocols import encode_protocols
from shoal.wire.trust import TRUST

_, _decode_trust = TRUST
_PROTOCOLS = encode_protocols(STREAM_WORKER.said_by(VERSION))

# ruff: noqa: ARG002, N802 - the shape and the names of the contract


class AgentService(StreamWorkerServiceServicer):
    """StreamWorkerService of the contract.

    Args:
        worker: has the attempts.
        proof: what the worker proves and trusts; None in a cluster without identity.
        channels: to other nodes, which are looked at again when the trust changes.
    """

    def __init__(
        self,
        worker: StreamWorker,
        proof: NodeProof | None = None,
        channels: Channels | None = None,
    ) -> None:
        self._worker = worker
        self._proof = proof
        self._channels = channels

    async def Attach(self, request: v1.AttachRequest, context: Any) -> v1.AttachResponse:
        """See the contract."""
        try:
            async with self._worker.lock(_ref(request.assignment.ref)):
                await self._worker.attach(
                    decode_assignment(request.assignment),
                    spool_path=request.spool_path,
                    keeper_path=request.keeper_path,
                    keeper_id=request.keeper_id,
                )
        except KeeperAwayError as error:
            raise rpc_error(grpc.StatusCode.UNAVAILABLE, "KEEPER_AWAY", str(error)) from error
        except (KeeperRefusedError, LookupError) as error:
            code = grpc.StatusCode.FAILED_PRECONDITION
            raise rpc_error(code, "PORTS_MISSING", _words(error)) from error
        except ValueError as error:
            code = grpc.StatusCode.INVALID_ARGUMENT
            raise rpc_error(code, "ASSIGNMENT", _words(error)) from error
        return v1.AttachResponse()

    async def UpdateLanes(
        self, request: v1.UpdateLanesRequest, context: Any
    ) -> v1.UpdateLanesResponse:
        """See the contract."""
        try:
            async with self._worker.lock(_ref(request.ref)):
                lanes = each(request.lanes, "lanes", decode_lane)
                await self._worker.update(self._shell(request.ref), lanes)
        except ValueError as error:
            raise rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "LANES", _words(error)) from error
        return v1.UpdateLanesResponse()

    async def Conclude(self, request: v1.ConcludeRequest, context: Any) -> v1.ConcludeResponse:
        """See the contract."""
        async with self._worker.lock(_ref(request.ref)):
            self._shell(request.ref).post(Concluded(request.succeeded))
        return v1.ConcludeResponse()

    async def Detach(self, request: v1.DetachRequest, context: Any) -> v1.DetachResponse:
        """See the contract."""
        ref = _ref(request.ref)
        async with self._worker.lock(ref):
            self._worker.detach(ref)
        return v1.DetachResponse()

    async def UpdateTrust(
        self, request: v1.UpdateTrustRequest, context: Any
    ) -> v1.UpdateTrustResponse:
        """See the contract."""
        if self._proof is None:
            message = "this stream worker was started without --identity, and trusts everybody"
            raise rpc_error(grpc.StatusCode.FAILED_PRECONDITION, "NO_IDENTITY", message)
        try:
            before = self._proof.credentials.authorities
            try:
                await self._proof.replace(_decode_trust(request.trust))
            finally:  # what is revoked is left, too, where the folder cannot be read
                if self._channels is not None:
                    others = self._proof.credentials.authorities != before
                    await self._channels.check_again(authorities_changed=others)
        except ValueError as error:
            raise rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "TRUST", _words(error)) from error
        except CredentialsError as error:
            code = grpc.StatusCode.FAILED_PRECONDITION
            raise rpc_error(code, "IDENTITY", str(error)) from error
        return v1.UpdateTrustResponse()

    async def WatchAttempts(
        self, request: v1.WatchAttemptsRequest, context: Any
    ) -> AsyncIterator[v1.WatchAttemptsResponse]:
        """See the contract."""
        async for changed in self._worker.news():
            yield v1.WatchAttemptsResponse(
                attempts=changed,
                stream_address=self._worker.stream_address,
                protocols=_PROTOCOLS,
            )

    def _shell(self, message: session_service_pb2.AttemptRef) -> AttemptStreamsShell:
        shell = self._worker.shell(_ref(message))
        if shell is None:
            raise rpc_error(
                grpc.StatusCode.NOT_FOUND,
                "ATTEMPT_UNKNOWN",
                f"{message.attempt} at epoch {message.epoch} is not attached; attach it first",
            )
        return shell


def _ref(message: session_service_pb2.AttemptRef) -> AttemptRef:
    try:
        return decode_attempt_ref(message)
    except ValueError as error:
        raise rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "ATTEMPT", _words(error)) from error


def _words(error: Exception) -> str:
    # LookupError puts its message into quotes.
    return str(error.args[0]) if isinstance(error, LookupError) else str(error)
