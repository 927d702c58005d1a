"""An agent whose every message a test writes: what a real one could say, and what none should."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self, cast

import aiohttp
import grpc
import grpc.aio

from shoal.channel import SESSION, channel_options, open_channel
from shoal.credentials import Credentials
from shoal.model import Capacity, JobState
from shoal.node_facts import NodeFacts
from shoal.session.messages import Hello
from shoal.tls import client_context
from shoal.v1 import (
    pipeline_pb2,
    pipelines_service_pb2,
    session_service_pb2_grpc,
)
from shoal.v1 import (
    session_service_pb2 as v1,
)
from shoal.wire.fields import encode_time
from shoal.wire.session import encode_hello
from tests.kit.until import until


class ScriptedAgent:
    """One session of one agent; use it with `async with`.

    Args:
        address: `host:port` of the controller.
        node: name of the node.
        credentials: what it proves; None over a connection in the clear.
    """

    def __init__(
        self,
        address: str,
        node: str = "node-1",
        *,
        cpus: float = 4,
        credentials: Credentials | None = None,
    ) -> None:
        self.node = self.member = node
        self._cpus = cpus
        self._believes = True if credentials is None else client_context(credentials.authorities)
        self._channel = open_channel(address, channel_options(SESSION), credentials)
        stub = session_service_pb2_grpc.SessionServiceStub(self._channel)
        self._call = cast("Any", stub.Connect())
        self._reading: asyncio.Task[None] | None = None
        self._sequence = 0
        self._writing = asyncio.Lock()
        self.acknowledged = 0
        self.responses = 0
        self.messages: list[v1.ControllerMessage] = []
        self.assignments: dict[str, v1.Assignment] = {}
        self.error: grpc.aio.AioRpcError | None = None
        self.ended = False

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.break_off()

    async def break_off(self) -> None:
        """End the session as a broken cable would."""
        self._call.cancel()
        if self._reading is not None:
            await self._reading
        await self._channel.close()

    async def end(self) -> None:
        """End the session in good order and wait until the controller has agreed."""
        await self._call.done_writing()
        await until(lambda: self.ended, what="the end of the stream")

    async def hello(
        self,
        *attempts: v1.AttemptObserved,
        labels: Mapping[str, str] | None = None,
        facts: NodeFacts | None = None,
        features: frozenset[str] = frozenset(),
    ) -> None:
        """Introduce the agent and wait for Welcome and the snapshot."""
        said = encode_hello(
            Hello(
                self.node,
                "scripted",
                Capacity(self._cpus, 1 << 30),
                "127.0.0.1:1",
                "0",
                labels or {},
                member_name=self.member,
                facts=facts,
                features=features,
            )
        )
        said.attempts.extend(attempts)
        await self.send(v1.AgentMessage(hello=said))
        await until(
            lambda: len(self.messages) >= 2 or self.ended, what=f"the snapshot for {self.node}"
        )

    async def send(self, *messages: v1.AgentMessage) -> int:
        """Send messages in one request and return its sequence."""
        async with self._writing:  # gRPC takes one write at a time
            self._sequence += 1
            sequence = self._sequence
            await self.send_request(v1.ConnectRequest(sequence=sequence, messages=messages))
        return sequence

    async def send_request(self, request: v1.ConnectRequest) -> None:
        """Send a request as it is."""
        await self._call.write(request)

    async def committed(self, sequence: int) -> None:
        """Wait until everything up to `sequence` is acknowledged."""
        await until(
            lambda: self.acknowledged >= sequence or self.ended, what=f"acknowledgement {sequence}"
        )
        assert self.acknowledged >= sequence, self.error

    async def assignment(self, job: str) -> v1.Assignment:
        """Wait until a job is assigned to this node."""

        def found() -> v1.Assignment | None:
            for name, assignment in self.assignments.items():
                if f"/jobs/{job}/attempts/" in name:
                    return assignment
            return None

        assignment = await until(found, what=f"job {job} on {self.node}")
        assert assignment is not None
        return assignment

    async def observe(
        self,
        ref: v1.AttemptRef,
        state: JobState,
        *,
        artifacts: Sequence[pipeline_pb2.Artifact] = (),
        reason: pipeline_pb2.Reason | None = None,
    ) -> None:
        """Report where an attempt stands and wait until it is committed."""
        await self.committed(
            await self.send(
                v1.AgentMessage(observed=observed(ref, state, artifacts=artifacts, reason=reason))
            )
        )

    async def log(
        self,
        ref: v1.AttemptRef,
        data: bytes,
        offset: int = 0,
        stream: int = 1,
        print_time: datetime | None = None,
    ) -> None:
        """Ship a piece of what an attempt printed and wait until it is kept."""
        await self.committed(
            await self.send(
                v1.AgentMessage(
                    log=pipelines_service_pb2.LogChunk(
                        attempt=ref.attempt,
                        epoch=ref.epoch,
                        stream=cast("Any", stream),
                        offset=offset,
                        data=data,
                        print_time=encode_time(print_time),
                    )
                )
            )
        )

    async def upload(
        self, ref: v1.AttemptRef, files: Mapping[str, bytes]
    ) -> list[pipeline_pb2.Artifact]:
        """Ask for addresses, PUT each file, and return the artifacts as they are to be reported."""
        wanted = [
            pipeline_pb2.Artifact(
                path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
            for path, data in files.items()
        ]
        await self.send(v1.AgentMessage(uploads_wanted=v1.UploadsWanted(ref=ref, artifacts=wanted)))
        granted = await until(lambda: self.granted(ref.attempt), what="grants")
        assert granted is not None
        keys: dict[str, str] = {}
        async with aiohttp.ClientSession() as http:
            for grant in granted.grants:
                async with http.put(
                    grant.url,
                    data=files[grant.path],
                    headers=dict(grant.headers),
                    ssl=self._believes,
                ) as response:
                    assert response.status == 200, await response.text()
                keys[grant.path] = grant.key
        for artifact in wanted:
            artifact.key = keys[artifact.path]
        return wanted

    def granted(self, attempt: str = "") -> v1.UploadsGranted | None:
        """The last grants, of all attempts or of one."""
        every = [m.uploads_granted for m in self.messages if m.HasField("uploads_granted")]
        found = [one for one in every if attempt in {"", one.ref.attempt}]
        return found[-1] if found else None

    def refused(self) -> list[v1.MessageRefused]:
        """Everything that was refused."""
        return [message.refused for message in self.messages if message.HasField("refused")]

    async def run_to_success(
        self, job: str, files: Mapping[str, bytes] | None = None
    ) -> v1.AttemptRef:
        """Take a job, run it, archive its files and report success, as a good agent does."""
        ref = (await self.assignment(job)).ref
        for state in (JobState.PREPARING, JobState.RUNNING, JobState.ARCHIVING):
            await self.observe(ref, state)
        artifacts = await self.upload(ref, files) if files else []
        await self.observe(ref, JobState.SUCCEEDED, artifacts=artifacts)
        return ref

    async def _read_all(self) -> None:
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self.acknowledged = response.acknowledged
                self.responses += 1
                for message in response.messages:
                    self.messages.append(message)
                    if message.HasField("desired"):
                        self._apply(message.desired)
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            pass
        finally:
            self.ended = True

    def _apply(self, desired: v1.Desired) -> None:
        if desired.snapshot and not desired.part:
            self.assignments.clear()
        for assignment in desired.assignments:
            self.assignments[assignment.ref.attempt] = assignment
        for ref in desired.removed:
            self.assignments.pop(ref.attempt, None)


def observed(
    ref: v1.AttemptRef,
    state: JobState,
    *,
    artifacts: Sequence[pipeline_pb2.Artifact] = (),
    reason: pipeline_pb2.Reason | None = None,
) -> v1.AttemptObserved:
    """Write where an attempt stands."""
    return v1.AttemptObserved(
        attempt=ref.attempt,
        namespace=ref.namespace,
        epoch=ref.epoch,
        state=cast("Any", int(state)),
        artifacts=artifacts,
        reason=reason,
    )


@contextlib.asynccontextmanager
async def connected_agent(
    address: str,
    node: str = "node-1",
    *,
    labels: Mapping[str, str] | None = None,
    cpus: float = 4,
    credentials: Credentials | None = None,
    features: frozenset[str] = frozenset(),
) -> AsyncIterator[ScriptedAgent]:
    """Give an agent whose session stands."""
    async with ScriptedAgent(address, node, cpus=cpus, credentials=credentials) as agent:
        await agent.hello(labels=labels, features=features)
        assert not agent.ended, agent.error
        yield agent
