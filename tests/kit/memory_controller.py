"""A gRPC server with the services that clients see, which keeps everything in memory.

It serves the contract over real sockets, so that clients can be tried against what a real
controller does only rarely: cuts in the middle, refusals, slow answers.

Theory: each call of the contract that it knows is a private method with the call's name in snake case, which
takes the request and returns the fields of the response, or yields them one after the other. Which
messages these are, and what streams, is read from the contract itself.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from services.runtime import rpc
from shoal import spec, view
from shoal.channel import USER
from shoal.model import Artifact, JobState, MemberState, PipelineState, ScaleState
from shoal.v1 import nodes_service_pb2, pipelines_service_pb2
from shoal.wire import view as wire_view
from shoal.wire.spec import decode_pipeline_spec
from shoal.wire.state import encode_artifact, encode_pipeline_state

Fields = dict[str, Any]
"""The fields of a response."""

SERVICES = (
    pipelines_service_pb2.DESCRIPTOR.services_by_name["PipelinesService"],
    nodes_service_pb2.DESCRIPTOR.services_by_name["NodesService"],
)
ARTIFACTS_PAGE = 2
"""How many artifacts a page lists."""


class MemoryController:
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
            options=rpc.server_options(USER), interceptors=[rpc.ErrorInterceptor()]
        )
        for service in SERVICES:
            handlers = {
                method.name: self._handler(method)
                for method in service.methods
                if hasattr(self, _snake(method.name))
            }
            generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
            server.add_generic_rpc_handlers((generic,))
        self.port = rpc.bind(server, f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    def _handler(self, method: Any) -> Any:
        answer = getattr(self, _snake(method.name))
        response = GetMessageClass(method.output_type)

        async def once(request: Any, context: Any) -> Any:
            fields = answer(context if method.client_streaming else request)
            return response(**(await fields if asyncio.iscoroutine(fields) else fields))

        async def streamed(request: Any, context: Any) -> AsyncIterator[Any]:
            async for fields in answer(context if method.client_streaming else request):
                yield response(**fields)

        ways = ("unary", "stream")
        kind = f"{ways[method.client_streaming]}_{ways[method.server_streaming]}"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            streamed if method.server_streaming else once,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=response.SerializeToString,
        )

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

    def _answer(self, name: str) -> Fields:
        return {"pipeline": wire_view.encode_pipeline(self._find(name))}

    # ---- pipelines ------------------------------------------------------------------------------

    async def _submit_pipeline(self, request: Any) -> Fields:
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
            return {**self._answer(pipeline_id), "repeated_request": True}
        pipeline_id = f"{asked.name}-{len(self.pipelines) + 1}"
        self.keys[request.request_id] = (pipeline_id, asked)
        jobs = tuple(
            view.JobView(
                f"pipelines/{pipeline_id}/jobs/{job.replica_id(replica)}",
                job.name,
                JobState.QUEUED,
                replica,
            )
            for job in asked.jobs
            for replica in range(job.replicas)
        )
        namespace = request.namespace or "default"
        self.put(view.PipelineView(pipeline_id, namespace, PipelineState.QUEUED, asked, jobs=jobs))
        if self.on_submit is not None:
            await self.on_submit(self.pipelines[pipeline_id])
        return self._answer(pipeline_id)

    async def _submit_pipelines(self, call: Any) -> AsyncIterator[Fields]:
        while (batch := await call.read()) is not grpc.aio.EOF:
            self.batches.append(len(batch.requests))
            yield {"outcomes": [await self._outcome(request) for request in batch.requests]}

    async def _outcome(self, request: Any) -> Fields:
        try:
            return {"response": await self._submit_pipeline(request)}
        except rpc.RpcError as error:
            refusal = {
                "code": int(error.code.value[0]),
                "reason": error.reason,
                "message": error.message,
                "metadata": error.metadata,
            }
            return {"refusal": refusal}

    def _get_pipeline(self, request: Any) -> Fields:
        return self._answer(request.name)

    def _list_pipelines(self, request: Any) -> Fields:
        found = [
            wire_view.encode_pipeline(pipeline)
            for pipeline in reversed(self.pipelines.values())
            if not request.states or encode_pipeline_state(pipeline.state) in request.states
        ]
        return _page("pipelines", found, request)

    def _cancel_pipeline(self, request: Any) -> Fields:
        self.finish(self._find(request.name).id, PipelineState.CANCELLED, JobState.CANCELLED)
        return self._answer(request.name)

    def _finish_pipeline(self, request: Any) -> Fields:
        self.finish(self._find(request.name).id, PipelineState.SUCCEEDED, JobState.SUCCEEDED)
        return self._answer(request.name)

    def _scale_job(self, request: Any) -> Fields:
        found = self._find(request.name)
        number = len(found.scales) + 1
        settled = ScaleState.SETTLED
        scale = view.ScaleView(number, request.job, request.replicas, settled, rounds=number)
        self.put(replace(found, scales=(*found.scales, scale)))
        return self._answer(request.name)

    async def _watch_pipelines(self, request: Any) -> AsyncIterator[Fields]:
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
                    yield {
                        "pipeline": wire_view.encode_pipeline(pipeline),
                        "revision": pipeline.revision,
                    }
            shown = through
            if snapshot:
                snapshot = False
                yield {"snapshot_end": {}, "revision": shown}
            await self._next(cut, changed)

    async def _read_logs(self, request: Any) -> AsyncIterator[Fields]:
        found = self._find(request.name)
        cut = self._cut
        self.log_readers += 1
        shown = 0
        while True:
            changed = self._changed
            while shown < len(self.chunks):
                chunk = wire_view.encode_log_chunk(self.chunks[shown])
                shown += 1
                yield {"chunk": chunk}
            self._break_if(cut)
            if not request.follow or self.pipelines[found.id].state.terminal:
                return
            await self._next(cut, changed)

    def _explain_job(self, request: Any) -> Fields:
        self._find(request.name)
        verdicts = (
            view.NodeVerdict(name, feasible=True, sentence=f"{name} has room", score=1.0)
            for name in self.nodes
        )
        return {"verdicts": map(wire_view.encode_verdict, verdicts)}

    def _list_events(self, request: Any) -> Fields:
        page = _page("events", [wire_view.encode_event(event) for event in self.events], request)
        return {**page, "publisher_state": "no broker configured; events are kept"}

    def _find_missing_bundles(self, request: Any) -> Fields:
        return {"digests": [digest for digest in request.digests if digest not in self.bundles]}

    async def _upload_bundle(self, call: Any) -> Fields:
        digest, data = "", bytearray()
        while (piece := await call.read()) is not grpc.aio.EOF:
            digest = digest or piece.digest
            data += piece.data
        if hashlib.sha256(data).hexdigest() != digest:
            raise rpc.rpc_error(
                grpc.StatusCode.DATA_LOSS, "BUNDLE_CHECKSUM", f"the bundle is not {digest}"
            )
        self.bundles[digest] = bytes(data)
        return {"digest": digest}

    def _list_artifacts(self, request: Any) -> Fields:
        found = [encode_artifact(one) for one in self.artifacts[request.name]]
        return _page("artifacts", found, request, ARTIFACTS_PAGE)

    def _get_artifact_url(self, request: Any) -> Fields:
        return {"url": self.urls[request.key]}

    # ---- nodes ----------------------------------------------------------------------------------

    def _list_nodes(self, _request: Any) -> Fields:
        return {"nodes": map(wire_view.encode_node, self.nodes.values())}

    def _get_node(self, request: Any) -> Fields:
        return {"node": wire_view.encode_node(self.nodes[request.name])}

    def _drain_node(self, request: Any) -> Fields:
        self.nodes[request.name] = replace(self.nodes[request.name], drained=request.drained)
        return self._get_node(request)

    def _adopt_node(self, request: Any) -> Fields:
        self.nodes[request.name] = replace(self.nodes[request.name], quarantine="")
        return self._get_node(request)

    def _watch_nodes(self, _request: Any) -> AsyncIterator[Fields]:
        return self._show({"node": wire_view.encode_node(node)} for node in self.nodes.values())

    def _list_members(self, _request: Any) -> Fields:
        return {"members": map(wire_view.encode_member, self._members())}

    def _watch_members(self, _request: Any) -> AsyncIterator[Fields]:
        return self._show({"member": wire_view.encode_member(member)} for member in self._members())

    def _members(self) -> list[view.MemberView]:
        tags = {"role": "agent"}
        return [
            view.MemberView(name, "127.0.0.1", 7946, MemberState.ALIVE, 1, tags)
            for name in self.nodes
        ]

    async def _show(self, things: Iterable[Fields]) -> AsyncIterator[Fields]:
        """A watch that shows what there is, and no change until it is cut."""
        cut = self._cut
        for fields in list(things):
            yield {**fields, "revision": 1}
        yield {"snapshot_end": {}, "revision": 1}
        while True:
            await self._next(cut, self._changed)


def _snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def _page(name: str, found: list[Any], request: Any, size: int = 0) -> Fields:
    begin = int(request.page_token or 0)
    end = begin + (size or request.page_size or 100)
    return {name: found[begin:end], "next_page_token": str(end) if end < len(found) else ""}
