"""A gRPC server with the services that clients see, which keeps everything in memory.

It serves the contract over real sockets, so that clients can be tried against what a real
controller does only rarely: cuts in the middle, refusals, slow answers.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Self

import grpc
import grpc.aio

from services.runtime import rpc
from shoal import spec, view
from shoal.model import Artifact, JobState, MemberState, PipelineState, ScaleState
from shoal.v1 import (
    nodes_service_pb2,
    nodes_service_pb2_grpc,
    pipelines_service_pb2,
    pipelines_service_pb2_grpc,
)
from shoal.wire.spec import decode_pipeline_spec
from shoal.wire.state import encode_artifact, encode_pipeline_state
from shoal.wire.view import (
    encode_event,
    encode_log_chunk,
    encode_member,
    encode_node,
    encode_pipeline,
    encode_verdict,
)

Context = grpc.aio.ServicerContext[Any, Any]

ARTIFACTS_PAGE = 2
"""How many artifacts a page lists."""


class MemoryController(
    pipelines_service_pb2_grpc.PipelinesServiceServicer,
    nodes_service_pb2_grpc.NodesServiceServicer,
):
    """Start it with `async with`; what it knows survives `stop` and `start`."""

    def __init__(self) -> None:
        self.port = 0
        self.revision = 0
        self.pipelines: dict[str, view.PipelineView] = {}
        self.keys: dict[str, tuple[str, spec.Pipeline]] = {}
        self.bundles: dict[str, bytes] = {}
        self.chunks: list[view.LogChunk] = []
        self.events: list[view.Event] = []
        self.urls: dict[str, str] = {}
        self.artifacts: dict[str, tuple[Artifact, ...]] = {}
        """All of a job, by its name: for pictures that list only some of them."""
        self.batches: list[int] = []
        self.watches = 0
        self.log_readers = 0
        self.nodes = {
            name: view.NodeView(name, connected=True, member_state=MemberState.ALIVE)
            for name in ("node-1", "node-2")
        }
        self.on_submit: Callable[[view.PipelineView], Awaitable[None]] | None = None
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()
        self._server: grpc.aio.Server | None = None

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
        server = grpc.aio.server(
            options=rpc.server_options(rpc.USER), interceptors=[rpc.ErrorInterceptor()]
        )
        pipelines_service_pb2_grpc.add_PipelinesServiceServicer_to_server(self, server)
        nodes_service_pb2_grpc.add_NodesServiceServicer_to_server(self, server)
        self.port = rpc.bind(server, f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Stop listening and break every call."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def cut(self) -> None:
        """Break every stream once."""
        self._cut.set()
        self._cut = asyncio.Event()

    def put(self, pipeline: view.PipelineView) -> None:
        """Record how a pipeline stands now."""
        self.revision += 1
        self.pipelines[pipeline.id] = replace(pipeline, revision=self.revision)
        self._wake()

    def finish(self, name: str, state: PipelineState, job_state: JobState) -> None:
        """Let a pipeline end."""
        pipeline = self.pipelines[name]
        jobs = tuple(replace(job, state=job_state) for job in pipeline.jobs)
        self.put(replace(pipeline, state=state, jobs=jobs))

    def say(self, chunk: view.LogChunk) -> None:
        """Record what an attempt printed."""
        self.chunks.append(chunk)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next(self, cut: asyncio.Event, changed: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (cut, changed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._break_if(cut)

    def _break_if(self, cut: asyncio.Event) -> None:
        if cut.is_set():
            raise rpc.rpc_error(grpc.StatusCode.UNAVAILABLE, "CUT", "the stream was cut")

    def _find(self, name: str) -> view.PipelineView:
        found = self.pipelines.get(name.removeprefix("pipelines/").split("/")[0])
        if found is None:
            raise rpc.rpc_error(
                grpc.StatusCode.NOT_FOUND,
                "UNKNOWN_PIPELINE",
                f"there is no pipeline {name!r}",
                {"name": name},
            )
        return found

    # ---- pipelines ------------------------------------------------------------------------------

    async def _submit(
        self, request: pipelines_service_pb2.SubmitPipelineRequest
    ) -> pipelines_service_pb2.SubmitPipelineResponse:
        asked = decode_pipeline_spec(request.spec, "spec")
        known = self.keys.get(request.request_id)
        if known is not None:
            pipeline_id, before = known
            if before != asked:
                raise rpc.rpc_error(
                    grpc.StatusCode.ALREADY_EXISTS,
                    "REQUEST_ID_REUSED",
                    f"request {request.request_id} was another specification",
                    {"pipeline": pipeline_id},
                )
            return pipelines_service_pb2.SubmitPipelineResponse(
                pipeline=encode_pipeline(self.pipelines[pipeline_id]), repeated_request=True
            )
        pipeline_id = f"{asked.name}-{len(self.pipelines) + 1}"
        self.keys[request.request_id] = (pipeline_id, asked)
        self.put(
            view.PipelineView(
                pipeline_id,
                request.namespace or "default",
                PipelineState.QUEUED,
                asked,
                jobs=tuple(
                    view.JobView(
                        f"pipelines/{pipeline_id}/jobs/{job.replica_id(replica)}",
                        job.name,
                        JobState.QUEUED,
                        replica,
                    )
                    for job in asked.jobs
                    for replica in range(job.replicas)
                ),
            )
        )
        if self.on_submit is not None:
            await self.on_submit(self.pipelines[pipeline_id])
        return pipelines_service_pb2.SubmitPipelineResponse(
            pipeline=encode_pipeline(self.pipelines[pipeline_id])
        )

    async def SubmitPipeline(  # noqa: N802
        self, request: pipelines_service_pb2.SubmitPipelineRequest, context: Context
    ) -> pipelines_service_pb2.SubmitPipelineResponse:
        return await self._submit(request)

    async def SubmitPipelines(  # noqa: N802
        self, request_iterator: Any, context: Context
    ) -> AsyncIterator[pipelines_service_pb2.SubmitPipelinesResponse]:
        while True:
            batch = await context.read()
            if batch is grpc.aio.EOF:
                return
            self.batches.append(len(batch.requests))
            outcomes: list[pipelines_service_pb2.SubmitOutcome] = []
            for request in batch.requests:
                try:
                    response = await self._submit(request)
                except rpc.RpcError as error:
                    refusal = pipelines_service_pb2.Refusal(
                        code=int(error.code.value[0]),
                        reason=error.reason,
                        message=error.message,
                        metadata=error.metadata,
                    )
                    outcomes.append(pipelines_service_pb2.SubmitOutcome(refusal=refusal))
                else:
                    outcomes.append(pipelines_service_pb2.SubmitOutcome(response=response))
            yield pipelines_service_pb2.SubmitPipelinesResponse(outcomes=outcomes)

    async def GetPipeline(  # noqa: N802
        self, request: pipelines_service_pb2.GetPipelineRequest, context: Context
    ) -> pipelines_service_pb2.GetPipelineResponse:
        return pipelines_service_pb2.GetPipelineResponse(
            pipeline=encode_pipeline(self._find(request.name))
        )

    async def ListPipelines(  # noqa: N802
        self, request: pipelines_service_pb2.ListPipelinesRequest, context: Context
    ) -> pipelines_service_pb2.ListPipelinesResponse:
        found = [
            encode_pipeline(pipeline)
            for pipeline in reversed(self.pipelines.values())
            if not request.states or encode_pipeline_state(pipeline.state) in request.states
        ]
        begin = int(request.page_token or 0)
        end = begin + (request.page_size or 100)
        return pipelines_service_pb2.ListPipelinesResponse(
            pipelines=found[begin:end], next_page_token=str(end) if end < len(found) else ""
        )

    async def CancelPipeline(  # noqa: N802
        self, request: pipelines_service_pb2.CancelPipelineRequest, context: Context
    ) -> pipelines_service_pb2.CancelPipelineResponse:
        found = self._find(request.name)
        self.finish(found.id, PipelineState.CANCELLED, JobState.CANCELLED)
        return pipelines_service_pb2.CancelPipelineResponse(
            pipeline=encode_pipeline(self.pipelines[found.id])
        )

    async def FinishPipeline(  # noqa: N802
        self, request: pipelines_service_pb2.FinishPipelineRequest, context: Context
    ) -> pipelines_service_pb2.FinishPipelineResponse:
        found = self._find(request.name)
        self.finish(found.id, PipelineState.SUCCEEDED, JobState.SUCCEEDED)
        return pipelines_service_pb2.FinishPipelineResponse(
            pipeline=encode_pipeline(self.pipelines[found.id])
        )

    async def ScaleJob(  # noqa: N802
        self, request: pipelines_service_pb2.ScaleJobRequest, context: Context
    ) -> pipelines_service_pb2.ScaleJobResponse:
        found = self._find(request.name)
        number = len(found.scales) + 1
        scale = view.ScaleView(
            number, request.job, request.replicas, ScaleState.SETTLED, rounds=number
        )
        self.put(replace(found, scales=(*found.scales, scale)))
        return pipelines_service_pb2.ScaleJobResponse(
            pipeline=encode_pipeline(self.pipelines[found.id])
        )

    async def WatchPipelines(  # noqa: N802
        self, request: pipelines_service_pb2.WatchPipelinesRequest, context: Context
    ) -> AsyncIterator[pipelines_service_pb2.WatchPipelinesResponse]:
        only = self._find(request.name).id if request.name else ""
        cut = self._cut
        shown = request.since_revision
        self.watches += 1
        snapshot = shown == 0
        while True:
            # What comes while it yields is for the next turn.
            changed, through = self._changed, self.revision
            for pipeline in tuple(self.pipelines.values()):
                if pipeline.revision > shown and only in {"", pipeline.id}:
                    yield pipelines_service_pb2.WatchPipelinesResponse(
                        pipeline=encode_pipeline(pipeline), revision=pipeline.revision
                    )
            shown = through
            if snapshot:
                snapshot = False
                yield pipelines_service_pb2.WatchPipelinesResponse(
                    snapshot_end=pipelines_service_pb2.SnapshotEnd(), revision=shown
                )
            await self._next(cut, changed)

    async def ReadLogs(  # noqa: N802
        self, request: pipelines_service_pb2.ReadLogsRequest, context: Context
    ) -> AsyncIterator[pipelines_service_pb2.ReadLogsResponse]:
        found = self._find(request.name)
        cut = self._cut
        self.log_readers += 1
        shown = 0
        while True:
            changed = self._changed
            while shown < len(self.chunks):
                chunk = encode_log_chunk(self.chunks[shown])
                shown += 1
                yield pipelines_service_pb2.ReadLogsResponse(chunk=chunk)
            self._break_if(cut)
            if not request.follow or self.pipelines[found.id].state.terminal:
                return
            await self._next(cut, changed)

    async def ExplainJob(  # noqa: N802
        self, request: pipelines_service_pb2.ExplainJobRequest, context: Context
    ) -> pipelines_service_pb2.ExplainJobResponse:
        self._find(request.name)
        return pipelines_service_pb2.ExplainJobResponse(
            verdicts=[
                encode_verdict(
                    view.NodeVerdict(name, feasible=True, sentence=f"{name} has room", score=1.0)
                )
                for name in self.nodes
            ]
        )

    async def ListEvents(  # noqa: N802
        self, request: pipelines_service_pb2.ListEventsRequest, context: Context
    ) -> pipelines_service_pb2.ListEventsResponse:
        begin = int(request.page_token or 0)
        end = begin + (request.page_size or 100)
        return pipelines_service_pb2.ListEventsResponse(
            events=[encode_event(event) for event in self.events[begin:end]],
            next_page_token=str(end) if end < len(self.events) else "",
            publisher_state="no broker configured; events are kept",
        )

    async def FindMissingBundles(  # noqa: N802
        self, request: pipelines_service_pb2.FindMissingBundlesRequest, context: Context
    ) -> pipelines_service_pb2.FindMissingBundlesResponse:
        return pipelines_service_pb2.FindMissingBundlesResponse(
            digests=[digest for digest in request.digests if digest not in self.bundles]
        )

    async def UploadBundle(  # noqa: N802
        self, request_iterator: Any, context: Context
    ) -> pipelines_service_pb2.UploadBundleResponse:
        digest, data = "", bytearray()
        while True:
            piece = await context.read()
            if piece is grpc.aio.EOF:
                break
            digest = digest or piece.digest
            data += piece.data
        if hashlib.sha256(data).hexdigest() != digest:
            raise rpc.rpc_error(
                grpc.StatusCode.DATA_LOSS, "BUNDLE_CHECKSUM", f"the bundle is not {digest}"
            )
        self.bundles[digest] = bytes(data)
        return pipelines_service_pb2.UploadBundleResponse(digest=digest)

    async def ListArtifacts(  # noqa: N802
        self, request: pipelines_service_pb2.ListArtifactsRequest, context: Context
    ) -> pipelines_service_pb2.ListArtifactsResponse:
        begin = int(request.page_token or 0)
        end = begin + ARTIFACTS_PAGE
        every = self.artifacts[request.name]
        return pipelines_service_pb2.ListArtifactsResponse(
            artifacts=[encode_artifact(one) for one in every[begin:end]],
            next_page_token=str(end) if end < len(every) else "",
        )

    async def GetArtifactUrl(  # noqa: N802
        self, request: pipelines_service_pb2.GetArtifactUrlRequest, context: Context
    ) -> pipelines_service_pb2.GetArtifactUrlResponse:
        return pipelines_service_pb2.GetArtifactUrlResponse(url=self.urls[request.key])

    # ---- nodes ----------------------------------------------------------------------------------

    async def ListNodes(  # noqa: N802
        self, request: nodes_service_pb2.ListNodesRequest, context: Context
    ) -> nodes_service_pb2.ListNodesResponse:
        return nodes_service_pb2.ListNodesResponse(
            nodes=[encode_node(node) for node in self.nodes.values()]
        )

    async def GetNode(  # noqa: N802
        self, request: nodes_service_pb2.GetNodeRequest, context: Context
    ) -> nodes_service_pb2.GetNodeResponse:
        return nodes_service_pb2.GetNodeResponse(node=encode_node(self.nodes[request.name]))

    async def DrainNode(  # noqa: N802
        self, request: nodes_service_pb2.DrainNodeRequest, context: Context
    ) -> nodes_service_pb2.DrainNodeResponse:
        node = replace(self.nodes[request.name], drained=request.drained)
        self.nodes[request.name] = node
        return nodes_service_pb2.DrainNodeResponse(node=encode_node(node))

    async def AdoptNode(  # noqa: N802
        self, request: nodes_service_pb2.AdoptNodeRequest, context: Context
    ) -> nodes_service_pb2.AdoptNodeResponse:
        node = replace(self.nodes[request.name], quarantine="")
        self.nodes[request.name] = node
        return nodes_service_pb2.AdoptNodeResponse(node=encode_node(node))

    async def WatchNodes(  # noqa: N802
        self, request: nodes_service_pb2.WatchNodesRequest, context: Context
    ) -> AsyncIterator[nodes_service_pb2.WatchNodesResponse]:
        cut = self._cut
        for node in self.nodes.values():
            yield nodes_service_pb2.WatchNodesResponse(node=encode_node(node), revision=1)
        yield nodes_service_pb2.WatchNodesResponse(
            snapshot_end=nodes_service_pb2.NodesSnapshotEnd(), revision=1
        )
        while True:
            await self._next(cut, self._changed)

    async def ListMembers(  # noqa: N802
        self, request: nodes_service_pb2.ListMembersRequest, context: Context
    ) -> nodes_service_pb2.ListMembersResponse:
        return nodes_service_pb2.ListMembersResponse(
            members=[
                encode_member(
                    view.MemberView(
                        name, "127.0.0.1", 7946, MemberState.ALIVE, 1, {"role": "agent"}
                    )
                )
                for name in self.nodes
            ]
        )

    async def WatchMembers(  # noqa: N802
        self, request: nodes_service_pb2.WatchMembersRequest, context: Context
    ) -> AsyncIterator[nodes_service_pb2.WatchMembersResponse]:
        cut = self._cut
        for name in self.nodes:
            member = view.MemberView(name, "127.0.0.1", 7946, MemberState.ALIVE, 1)
            yield nodes_service_pb2.WatchMembersResponse(member=encode_member(member))
        yield nodes_service_pb2.WatchMembersResponse(
            snapshot_end=nodes_service_pb2.MembersSnapshotEnd(), revision=1
        )
        while True:
            await self._next(cut, self._changed)
