"""A controller's end of the session over real gRPC, played by a test: it commits in memory.

What it acknowledges and when is the controller's own rule; `test_acknowledgement_contract` holds both to it.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Self

import grpc.aio

from control.front.sessions.acknowledgements import Acknowledgements
from services.runtime import rpc
from shoal.channel import SESSION
from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment, Goal
from shoal.session.folder_files import FilesGranted
from shoal.session.messages import Desired, Fenced, Welcome
from shoal.session.uploads import UploadGrant, UploadsGranted
from shoal.v1 import session_service_pb2 as v1
from shoal.v1 import session_service_pb2_grpc
from shoal.wire.attempt import decode_attempt_ref
from shoal.wire.session import encode_controller_message
from shoal.wire.state import JOB_STATE
from tests.kit.object_server import ObjectServer

Context = grpc.aio.ServicerContext[Any, Any]
Messages = list[v1.ControllerMessage]


class ScriptedController(session_service_pb2_grpc.SessionServiceServicer):
    """Serves one agent at a time. What it was told survives `stop` and `start`, as in a store.

    Args:
        objects: where it lets artifacts be put.
        heartbeat_seconds: what it asks of agents.
        lease_seconds: how long it would tolerate their silence.
    """

    def __init__(
        self, objects: ObjectServer, heartbeat_seconds: float = 1.0, lease_seconds: float = 6.0
    ) -> None:
        self.objects = objects
        self.port = 0
        self.hellos: list[v1.Hello] = []
        self.observed: dict[AttemptRef, list[v1.AttemptObserved]] = {}
        self.logs: dict[tuple[str, int], bytearray] = {}
        self.progress: list[v1.AttemptProgress] = []
        self.conditions: list[v1.NodeCondition] = []
        self.heartbeats = 0
        self.sessions = 0
        self.acknowledged = 0
        self.wanted: dict[AttemptRef, Assignment] = {}
        self.refuse_path = ""
        """Artifact that is granted no place."""
        self.takes_contents = False
        """Whether it says that it stores small artifacts itself; a controller of before does not."""
        self.stores_contents = True
        """Whether it does, having said so; else it grants addresses, as where its archive is away."""
        self.holds_grants = False
        """Whether questions where to store get no answer."""
        self.uploads_wanted: list[v1.UploadsWanted] = []
        self.commit_ends = True
        self.fence: set[AttemptRef] = set()
        self.folder_files: list[str] = []
        """Addresses of the files of each folder input, in the order of its list."""
        self.holds_files = False
        """Whether requests for them get no answer."""
        self.files_wanted: list[v1.FilesWanted] = []
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._server: grpc.aio.Server | None = None
        self._outbox: asyncio.Queue[Messages] | None = None
        self._revision = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        server = grpc.aio.server(options=rpc.server_options(SESSION))
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(self, server)
        self.port = rpc.bind(server, f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Break every session and stop listening."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    # ---- what a test wants

    def assign(self, assignment: Assignment) -> None:
        """Want an attempt, or want it otherwise than before."""
        self.wanted[assignment.ref] = assignment
        self._send_desired(assignments=(assignment,))

    def stop_attempt(self, ref: AttemptRef) -> None:
        """Want an attempt to end."""
        self.assign(replace(self.wanted[ref], goal=Goal.STOP))

    def remove(self, ref: AttemptRef) -> None:
        """Want an attempt no more."""
        self.wanted.pop(ref, None)
        self._send_desired(removed=(ref,))

    # ---- what it was told

    def state(self, ref: AttemptRef) -> JobState | None:
        """The last state of an attempt."""
        told = self.observed.get(ref)
        return JOB_STATE.decode(told[-1].state) if told else None

    def states(self, ref: AttemptRef) -> list[JobState]:
        """Every state of an attempt, repetitions left out."""
        told = [JOB_STATE.decode(message.state) for message in self.observed.get(ref, [])]
        return [state for index, state in enumerate(told) if index == 0 or told[index - 1] != state]

    def reason(self, ref: AttemptRef) -> tuple[str, int, str]:
        """Code, number and message of the last reason."""
        reason = self.observed[ref][-1].reason
        return reason.exact_code or reason.code, reason.number, reason.message

    def log(self, ref: AttemptRef, stream: int = 1) -> str:
        """What was shipped of an output."""
        return self.logs.get((ref.name, stream), bytearray()).decode()

    # ---- the service

    async def Connect(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[v1.ConnectResponse]:
        """Serve one session."""
        outbox: asyncio.Queue[Messages] = asyncio.Queue(1000)
        acknowledgements = Acknowledgements(self._lease_seconds, time.monotonic())
        reader = asyncio.create_task(self._hear(request_iterator, outbox, acknowledgements))
        sequence = 0
        try:
            while not reader.done() or not outbox.empty():
                getter = asyncio.create_task(outbox.get())
                await asyncio.wait({getter, reader}, return_when=asyncio.FIRST_COMPLETED)
                if not getter.done():
                    getter.cancel()
                    continue
                sequence += 1
                yield v1.ConnectResponse(
                    sequence=sequence,
                    acknowledged=acknowledgements.say(time.monotonic()),
                    messages=getter.result(),
                )
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            if self._outbox is outbox:
                self._outbox = None

    async def _hear(
        self,
        requests: AsyncIterator[v1.ConnectRequest],
        outbox: asyncio.Queue[Messages],
        acknowledgements: Acknowledgements,
    ) -> None:
        heard = 0
        async for request in requests:
            heard += 1
            assert request.sequence == heard, "the agent numbers its messages from 1"
            self.acknowledged = request.acknowledged
            answers: Messages = []
            for message in request.messages:
                answers += self._take(message, outbox)
            # Everything that is in memory counts as committed, and is acknowledged as a controller does.
            waited_for = any(one.WhichOneof("message") != "heartbeat" for one in request.messages)
            due = acknowledgements.committed(heard, waited_for=waited_for, now=time.monotonic())
            if answers or due:
                await outbox.put(answers)

    def _take(self, message: v1.AgentMessage, outbox: asyncio.Queue[Messages]) -> Messages:
        match message.WhichOneof("message"):
            case "hello":
                return self._welcome(message.hello, outbox)
            case "heartbeat":
                self.heartbeats += 1
            case "observed":
                return self._observe(message.observed)
            case "log":
                self._take_log(message.log)
            case "progress":
                self.progress.append(message.progress)
            case "condition":
                self.conditions.append(message.condition)
            case "uploads_wanted":
                self.uploads_wanted.append(message.uploads_wanted)
                return [] if self.holds_grants else [self._grant(message.uploads_wanted)]
            case "files_wanted":
                self.files_wanted.append(message.files_wanted)
                return [] if self.holds_files else [self._say_where(message.files_wanted)]
            case "facts" | "bundles_held":
                pass
            case "certificate_wanted" | None:
                raise AssertionError("an empty message, or one that needs an identity")
        return []

    def _welcome(self, hello: v1.Hello, outbox: asyncio.Queue[Messages]) -> Messages:
        self.hellos.append(hello)
        self.conditions.append(hello.condition)
        self.sessions += 1
        for observed in hello.attempts:
            self._observe(observed)
        self._outbox = outbox
        self._revision += 1
        welcome = Welcome(
            "scripted",
            self._lease_seconds,
            self._heartbeat_seconds,
            takes_contents=self.takes_contents,
        )
        snapshot = Desired(self._revision, True, tuple(self.wanted.values()))
        return [encode_controller_message(welcome), encode_controller_message(snapshot)]

    def _observe(self, observed: v1.AttemptObserved) -> Messages:
        ref = decode_attempt_ref(observed, "")
        if ref in self.fence:
            return [encode_controller_message(Fenced(ref, "a newer one runs"))]
        self.observed.setdefault(ref, []).append(observed)
        if JOB_STATE.decode(observed.state).terminal and self.commit_ends:
            self.wanted.pop(ref, None)
            return [self._desired(removed=(ref,))]
        return []

    def _take_log(self, chunk: Any) -> None:
        log = self.logs.setdefault((chunk.attempt, chunk.stream), bytearray())
        assert chunk.offset <= len(log), "a log has no holes"
        log[chunk.offset :] = chunk.data

    def _grant(self, wanted: v1.UploadsWanted) -> v1.ControllerMessage:
        ref = decode_attempt_ref(wanted.ref)
        contents = {one.path: one.data for one in wanted.contents} if self.stores_contents else {}
        grants: list[UploadGrant] = []
        for artifact in wanted.artifacts:
            key = f"{ref.prefix}/out/{artifact.path}"
            if artifact.path == self.refuse_path:
                grants.append(UploadGrant(artifact.path, problem="for a test"))
            elif (data := contents.get(artifact.path)) is not None:
                assert hashlib.sha256(data).hexdigest() == artifact.sha256
                self.objects.objects[key] = data
                grants.append(UploadGrant(artifact.path, key, stored=True))
            else:
                headers = {"x-amz-checksum-sha256": artifact.sha256}
                grants.append(UploadGrant(artifact.path, key, self.objects.url(key), headers))
        return encode_controller_message(UploadsGranted(ref, tuple(grants)))

    def _say_where(self, wanted: v1.FilesWanted) -> v1.ControllerMessage:
        last = wanted.first + wanted.count
        urls = tuple(self.folder_files[wanted.first : last])
        ref = decode_attempt_ref(wanted.ref)
        return encode_controller_message(FilesGranted(ref, wanted.input, wanted.first, urls))

    def _desired(self, **changed: Any) -> v1.ControllerMessage:
        self._revision += 1
        return encode_controller_message(Desired(self._revision, snapshot=False, **changed))

    def _send_desired(self, **changed: Any) -> None:
        if self._outbox is not None:
            self._outbox.put_nowait([self._desired(**changed)])
