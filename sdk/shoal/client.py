"""The asynchronous client of a controller: everything that the `shoal` command does, for programs.

async with Client("127.0.0.1:7470") as client:
    submitted = await client.submit(pipeline)
    ended = await client.wait(submitted.pipeline.name)
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio

from shoal import spec, view
from shoal.address import check_address
from shoal.bundle import PackedBundle
from shoal.connection import Connection, Pause, decoded
from shoal.download import download, open_at, read_piece
from shoal.errors import DownloadError, ShoalError, TooLateError
from shoal.model import Artifact, MemberState, PipelineState
from shoal.submitter import Submitter
from shoal.v1 import (
    keys_service_pb2,
    keys_service_pb2_grpc,
    lanes_service_pb2_grpc,
    nodes_service_pb2,
    nodes_service_pb2_grpc,
    pipelines_service_pb2,
    pipelines_service_pb2_grpc,
    records_service_pb2,
    records_service_pb2_grpc,
)
from shoal.wire.records import TAP_WISH, decode_tap_news
from shoal.wire.spec import encode_pipeline_spec
from shoal.wire.state import decode_artifact, encode_pipeline_state
from shoal.wire.view import (
    decode_event,
    decode_keys_report,
    decode_log_chunk,
    decode_member,
    decode_node,
    decode_pipeline,
    decode_verdict,
)

_CHUNK_BYTES = 1024 * 1024
_READ_FAILURES_MAX = 3
_LOGS = {"stdout": view.LogStream.STDOUT, "stderr": view.LogStream.STDERR}
_KEYS_SECONDS = 120.0  # every member is waited for, and asked again where it is silent
_EVERYTHING = view.TapWish()
_SLOWEST_UPLOAD_BYTES_PER_SECOND = 50_000


@dataclass(frozen=True, slots=True)
class Submitted:
    """The pipeline as recorded, and whether an earlier submission with the same key made it."""

    pipeline: view.PipelineView
    repeated: bool


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """In a watch: everything up to `revision` has been shown; changes follow."""

    revision: int


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, oldest first, and how the controller stands with its broker."""

    events: tuple[view.Event, ...]
    publisher_state: str
    next_page_token: str = ""


class Client:
    """A connection to one controller; use it with `async with`.

    Args:
        address: `host:port` of the controller.
        namespace: whose pipelines are meant.
        deadline_seconds: how long a request may take, with retries after a cut.
        patience_seconds: how long a watch may stay cut before it is given up.
        new_id: makes request ids; unique ones.

    Raises:
        ShoalError: the address is malformed.
    """

    def __init__(
        self,
        address: str,
        *,
        namespace: str = "default",
        deadline_seconds: float = 30.0,
        patience_seconds: float = 120.0,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.address = check_address(address)
        self.namespace = namespace
        self._deadline_seconds = deadline_seconds
        self._patience_seconds = patience_seconds
        self._new_id = new_id
        self._group = asyncio.TaskGroup()
        self._open: _Open | None = None

    async def __aenter__(self) -> Self:
        connection = Connection(
            self.address,
            deadline_seconds=self._deadline_seconds,
            patience_seconds=self._patience_seconds,
        )
        submitter = Submitter(connection)
        await self._group.__aenter__()
        self._open = _Open(
            connection,
            submitter,
            pipelines_service_pb2_grpc.PipelinesServiceStub(connection.channel),
            nodes_service_pb2_grpc.NodesServiceStub(connection.channel),
            keys_service_pb2_grpc.KeysServiceStub(connection.channel),
            records_service_pb2_grpc.RecordsServiceStub(connection.channel),
            lanes_service_pb2_grpc.LanesServiceStub(connection.channel),
            self._group.create_task(submitter.run()),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        held = self._held
        self._open = None
        held.submitting.cancel()
        # The caller's own errors go by the group, which would wrap them; cancellation it must see.
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)
        finally:
            await held.connection.close()

    @property
    def _held(self) -> "_Open":
        if self._open is None:
            raise RuntimeError("the client is not open; use `async with Client(…) as client`")
        return self._open

    # ---- pipelines ------------------------------------------------------------------------------

    async def submit(self, pipeline: spec.Pipeline, *, request_id: str = "") -> Submitted:
        """Record a pipeline; concurrent calls travel in batches.

        Args:
            pipeline: what to run; its bundle has to be there already, see `ensure_bundle`.
            request_id: idempotency key; without one, only retries of this call are told apart.

        Raises:
            ShoalError: it was refused, or the same key was used for another specification.
        """
        response = await self._held.submitter.submit(
            pipelines_service_pb2.SubmitPipelineRequest(
                namespace=self.namespace,
                request_id=request_id or self._new_id(),
                spec=encode_pipeline_spec(pipeline),
            )
        )
        return Submitted(decoded(decode_pipeline, response.pipeline), response.repeated_request)

    async def ensure_bundle(self, bundle: PackedBundle) -> bool:
        """Upload a bundle unless the archive has it.

        Returns:
            Whether it was uploaded.

        Raises:
            ShoalError: the upload failed.
        """
        held = self._held
        answer: pipelines_service_pb2.FindMissingBundlesResponse = await held.connection.call(
            held.pipelines.FindMissingBundles,
            pipelines_service_pb2.FindMissingBundlesRequest(digests=[bundle.digest]),
        )
        if bundle.digest not in answer.digests:
            return False
        await self._upload(bundle)
        return True

    async def _upload(self, bundle: PackedBundle) -> None:
        held = self._held
        allowed = self._deadline_seconds + bundle.size_bytes / _SLOWEST_UPLOAD_BYTES_PER_SECOND

        async def upload(
            _request: None,
            *,
            timeout: float | None = None,  # noqa: ASYNC109  # as the methods of a stub call it
        ) -> None:
            call = held.pipelines.UploadBundle(timeout=timeout)
            try:
                await _write_bundle(call, bundle)
                await call
            finally:
                call.cancel()

        await held.connection.call(upload, None, deadline_seconds=allowed)

    async def get(self, name: str) -> view.PipelineView:
        """Return one pipeline by name or id.

        Raises:
            ShoalError: there is none.
        """
        held = self._held
        answer: pipelines_service_pb2.GetPipelineResponse = await held.connection.call(
            held.pipelines.GetPipeline,
            pipelines_service_pb2.GetPipelineRequest(name=name, namespace=self.namespace),
        )
        return await self._complete(decoded(decode_pipeline, answer.pipeline))

    async def _complete(self, pipeline: view.PipelineView) -> view.PipelineView:
        """Read the artifacts that did not fit into the picture of a pipeline."""
        jobs = [
            job
            if job.manifest is None or not job.manifest.left_out
            else replace(job, manifest=await self._whole(job.name, job.manifest))
            for job in pipeline.jobs
        ]
        return replace(pipeline, jobs=tuple(jobs))

    async def _whole(self, name: str, manifest: view.Manifest) -> view.Manifest:
        held = self._held
        found = list(manifest.artifacts)
        token = str(len(found))
        while token:
            answer: pipelines_service_pb2.ListArtifactsResponse = await held.connection.call(
                held.pipelines.ListArtifacts,
                pipelines_service_pb2.ListArtifactsRequest(
                    name=name, namespace=self.namespace, page_token=token
                ),
            )
            found += [decoded(decode_artifact, one) for one in answer.artifacts]
            token = answer.next_page_token
        return replace(manifest, artifacts=tuple(found), left_out=0)

    async def list(
        self, states: Sequence[PipelineState] = (), *, page_size: int = 100
    ) -> AsyncGenerator[view.PipelineView, None]:
        """List pipelines, newest first, page by page.

        Raises:
            ShoalError: a page could not be read.
        """
        held = self._held
        token = ""
        while True:
            answer: pipelines_service_pb2.ListPipelinesResponse = await held.connection.call(
                held.pipelines.ListPipelines,
                pipelines_service_pb2.ListPipelinesRequest(
                    namespace=self.namespace,
                    page_size=page_size,
                    page_token=token,
                    states=[encode_pipeline_state(state) for state in states],
                ),
            )
            for pipeline in answer.pipelines:
                yield decoded(decode_pipeline, pipeline)
            token = answer.next_page_token
            if not token:
                return

    async def cancel(self, name: str, reason: str = "") -> view.PipelineView:
        """Ask for the end of a pipeline, and return how it stands right after.

        Raises:
            ShoalError: there is none.
        """
        held = self._held
        answer: pipelines_service_pb2.CancelPipelineResponse = await held.connection.call(
            held.pipelines.CancelPipeline,
            pipelines_service_pb2.CancelPipelineRequest(
                name=name, namespace=self.namespace, reason=reason
            ),
        )
        return decoded(decode_pipeline, answer.pipeline)

    async def finish(self, name: str) -> view.PipelineView:
        """Ask the sources of a pipeline to end, and return how it stands right after.

        Sources are the jobs without stream inputs. What they have sent is processed and archived,
        and the pipeline ends as it would have by itself. Asking again changes nothing.

        Raises:
            ShoalError: there is none.
        """
        held = self._held
        answer: pipelines_service_pb2.FinishPipelineResponse = await held.connection.call(
            held.pipelines.FinishPipeline,
            pipelines_service_pb2.FinishPipelineRequest(name=name, namespace=self.namespace),
        )
        return decoded(decode_pipeline, answer.pipeline)

    async def scale(self, name: str, job: str, replicas: int) -> view.PipelineView:
        """Change the number of replicas of a job, by its name in the specification.

        It returns once that is recorded: then `scales[-1]` is HOLDING, and the new replicas begin
        once it is SETTLED. Asking again for the same changes nothing.

        Raises:
            ShoalError: there is no such pipeline or job, it cannot be scaled, or there is no room.
        """
        held = self._held
        answer: pipelines_service_pb2.ScaleJobResponse = await held.connection.call(
            held.pipelines.ScaleJob,
            pipelines_service_pb2.ScaleJobRequest(
                name=name, namespace=self.namespace, job=job, replicas=replicas
            ),
        )
        return decoded(decode_pipeline, answer.pipeline)

    async def watch(self, name: str = "") -> AsyncGenerator[view.PipelineView | SnapshotEnd, None]:
        """Show one pipeline, or all, as they are and then as they change.

        After a cut it goes on behind the last revision that was shown; a picture may come twice.
        Close it with `contextlib.aclosing` when you stop early.

        Raises:
            ShoalError: the pipeline is unknown, or the controller stayed away for too long.
        """
        held = self._held
        revision = 0

        def request() -> pipelines_service_pb2.WatchPipelinesRequest:
            return pipelines_service_pb2.WatchPipelinesRequest(
                namespace=self.namespace, name=name, since_revision=revision
            )

        stream = held.connection.stream(held.pipelines.WatchPipelines, request, endless=True)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                match response.WhichOneof("change"):
                    case "pipeline":
                        yield decoded(decode_pipeline, response.pipeline)
                    case "snapshot_end":
                        yield SnapshotEnd(response.revision)
                    case _:
                        pass  # something that a newer controller says
                revision = max(revision, response.revision)

    async def wait(self, name: str, *, deadline_seconds: float | None = None) -> view.PipelineView:
        """Wait until a pipeline has ended.

        Raises:
            ShoalError: it is unknown, did not end in time, or the controller stayed away.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                async with contextlib.aclosing(self.watch(name)) as changes:
                    async for change in changes:
                        if isinstance(change, view.PipelineView) and change.state.terminal:
                            return await self._complete(change)
        except TimeoutError:
            raise TooLateError(f"{name} did not end", deadline_seconds or 0.0) from None
        raise ShoalError("WATCH_ENDED", f"the watch of {name} ended early; try again")

    async def logs(
        self, name: str, *, follow: bool = False, tail_bytes: int = 0
    ) -> AsyncGenerator[view.LogChunk, None]:
        """Read what the attempts of a pipeline, or of one of its jobs, print.

        After a cut it goes on where it was: nothing comes twice. Of a very long log only the
        beginning comes live (`view.LIVE_LOG_BYTES_MAX`); the rest follows at the end, from the
        archive, which has the logs of attempts that succeeded, and of no others.

        Args:
            name: `pipelines/{p}`, `pipelines/{p}/jobs/{j}`, or an id.
            follow: whether to go on until the pipeline has ended.
            tail_bytes: only the last of each log; 0 means all.

        Raises:
            ShoalError: there is no such pipeline or job, the controller stayed away, or the
                archive cannot be read.
        """
        held = self._held
        seen: dict[tuple[str, int, view.LogStream], int] = {}
        # Of these, what the controller keeps has no end, so the last words are in the archive.
        apart = await self._archived_logs(name) if tail_bytes and not follow else {}

        def request() -> pipelines_service_pb2.ReadLogsRequest:
            return pipelines_service_pb2.ReadLogsRequest(
                name=name,
                namespace=self.namespace,
                follow=follow,
                # Once something was seen, all is asked for: what is known is dropped below.
                tail_bytes=0 if seen else tail_bytes,
            )

        stream = held.connection.stream(held.pipelines.ReadLogs, request, endless=False)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                chunk = decoded(decode_log_chunk, response.chunk)
                key = (chunk.attempt, chunk.epoch, chunk.stream)
                if key in apart:
                    continue
                end = chunk.offset + len(chunk.data)
                known = seen.get(key, 0)
                if end <= known:
                    continue
                seen[key] = end
                if chunk.offset < known:
                    data = chunk.data[known - chunk.offset :]
                    chunk = view.LogChunk(chunk.attempt, chunk.stream, known, data, chunk.epoch)
                yield chunk
        for key, artifact in (apart or await self._archived_logs(name)).items():
            begin = seen.get(key, 0)
            if key in apart:
                begin = max(0, artifact.size_bytes - tail_bytes)
            async with contextlib.aclosing(self._read_archived(key, artifact, begin)) as rest:
                async for chunk in rest:
                    yield chunk

    async def _archived_logs(self, name: str) -> dict[tuple[str, int, view.LogStream], Artifact]:
        """Find the logs in the archive of which the controller keeps the beginning alone."""
        parts = name.split("/")
        pipeline, job = (parts[1:2], parts[3:4]) if len(parts) > 1 else (parts, [])
        found: dict[tuple[str, int, view.LogStream], Artifact] = {}
        for one in (await self.get(pipeline[0])).jobs:
            if one.manifest is None or (job and job[0] not in {one.id, one.spec_name}):
                continue
            for artifact in one.manifest.artifacts:
                stream = _LOGS.get(artifact.path)
                if stream is not None and artifact.size_bytes > view.LIVE_LOG_BYTES_MAX:
                    found[one.manifest.attempt, one.manifest.epoch, stream] = artifact
        return found

    async def _read_archived(
        self, key: tuple[str, int, view.LogStream], artifact: Artifact, offset: int
    ) -> AsyncGenerator[view.LogChunk, None]:
        """Read a log from a byte on; where the archive breaks off, it is asked again."""
        attempt, epoch, stream = key
        pause = Pause()
        failures = 0
        while offset < artifact.size_bytes:
            before = offset
            try:
                url = await self.artifact_url(artifact)
                response = await asyncio.to_thread(open_at, url, offset)
                with contextlib.closing(response):
                    while data := await asyncio.to_thread(read_piece, response):
                        yield view.LogChunk(attempt, stream, offset, data, epoch)
                        offset += len(data)
                if offset < artifact.size_bytes:
                    raise DownloadError(
                        f"{artifact.path} of {attempt} ends after {offset} of "
                        f"{artifact.size_bytes} bytes; try again"
                    )
            except DownloadError:
                failures = 1 if offset > before else failures + 1
                if failures > _READ_FAILURES_MAX:
                    raise
                await pause.wait()

    async def tap(
        self, name: str, port: str, wish: view.TapWish = _EVERYTHING
    ) -> AsyncGenerator[view.TapNews, None]:
        """Look at the records of an output port while they pass, until its stream ends.

        It shows what passes from now on, some of it where much passes, and never slows the stream.

        Args:
            name: the producer, `pipelines/{p}/jobs/{j}`; a job of the specification stands for all
                its replicas.
            port: its output port.
            wish: how much of it.

        Raises:
            ShoalError: there is no such pipeline, job or port, or the controller stayed away.
        """
        held = self._held

        def request() -> records_service_pb2.TapPortRequest:
            return records_service_pb2.TapPortRequest(
                name=name, namespace=self.namespace, port=port, wish=TAP_WISH.encode(wish)
            )

        stream = held.connection.stream(held.records.TapPort, request, endless=False)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                yield decoded(decode_tap_news, response)

    @property
    def lanes(self) -> "lanes_service_pb2_grpc.LanesServiceStub":
        """Lanes between this client and pipelines; see `shoal.local`."""
        return self._held.lanes

    def error(self, error: grpc.aio.AioRpcError) -> ShoalError:
        """Translate gRPC's error of a call that was made on `lanes`."""
        return self._held.connection.error(error, 0.0)

    async def explain(self, name: str) -> tuple[view.NodeVerdict, ...]:
        """Say for each node why a job (`pipelines/{p}/jobs/{j}`) is or is not placed there.

        Raises:
            ShoalError: there is no such job.
        """
        held = self._held
        answer: pipelines_service_pb2.ExplainJobResponse = await held.connection.call(
            held.pipelines.ExplainJob,
            pipelines_service_pb2.ExplainJobRequest(name=name, namespace=self.namespace),
        )
        return tuple(decode_verdict(verdict) for verdict in answer.verdicts)

    async def events(
        self, name: str = "", *, page_token: str = "", page_size: int = 100
    ) -> EventPage:
        """Return one page of events, oldest first, of one pipeline or of all.

        Raises:
            ShoalError: they could not be read.
        """
        held = self._held
        answer: pipelines_service_pb2.ListEventsResponse = await held.connection.call(
            held.pipelines.ListEvents,
            pipelines_service_pb2.ListEventsRequest(
                namespace=self.namespace, name=name, page_size=page_size, page_token=page_token
            ),
        )
        return EventPage(
            tuple(decoded(decode_event, event) for event in answer.events),
            answer.publisher_state,
            answer.next_page_token,
        )

    async def artifact_url(self, artifact: Artifact) -> str:
        """Return an address under which an artifact can be read for a while.

        Raises:
            ShoalError: the archive does not have it.
        """
        held = self._held
        answer: pipelines_service_pb2.GetArtifactUrlResponse = await held.connection.call(
            held.pipelines.GetArtifactUrl,
            pipelines_service_pb2.GetArtifactUrlRequest(key=artifact.key, namespace=self.namespace),
        )
        return answer.url

    async def fetch(self, artifact: Artifact, target: Path) -> None:
        """Download an artifact to a file, checked against its size and SHA-256.

        Raises:
            ShoalError: it cannot be fetched, or is not what its manifest says.
        """
        pause = Pause()
        for last in (False, False, True):
            url = await self.artifact_url(artifact)
            try:
                await asyncio.to_thread(download, url, target, sha256=artifact.sha256)
            except ShoalError:
                if last:
                    raise
                await pause.wait()
            else:
                return

    # ---- nodes ----------------------------------------------------------------------------------

    async def nodes(self) -> tuple[view.NodeView, ...]:
        """List all nodes by name.

        Raises:
            ShoalError: they could not be read.
        """
        held = self._held
        found: list[view.NodeView] = []
        token = ""
        while True:
            answer: nodes_service_pb2.ListNodesResponse = await held.connection.call(
                held.nodes.ListNodes, nodes_service_pb2.ListNodesRequest(page_token=token)
            )
            found.extend(decoded(decode_node, node) for node in answer.nodes)
            token = answer.next_page_token
            if not token:
                return tuple(found)

    async def node(self, name: str) -> view.NodeView:
        """Return one node.

        Raises:
            ShoalError: there is none.
        """
        held = self._held
        answer: nodes_service_pb2.GetNodeResponse = await held.connection.call(
            held.nodes.GetNode, nodes_service_pb2.GetNodeRequest(name=name)
        )
        return decoded(decode_node, answer.node)

    async def drain(self, name: str, *, drained: bool = True) -> view.NodeView:
        """Stop placing on a node, or take it back.

        Raises:
            ShoalError: there is none.
        """
        held = self._held
        answer: nodes_service_pb2.DrainNodeResponse = await held.connection.call(
            held.nodes.DrainNode, nodes_service_pb2.DrainNodeRequest(name=name, drained=drained)
        )
        return decoded(decode_node, answer.node)

    async def adopt(self, name: str) -> view.NodeView:
        """Let a quarantined node give up what it has and follow this controller.

        Raises:
            ShoalError: there is none of that name, or it is not quarantined.
        """
        held = self._held
        answer: nodes_service_pb2.AdoptNodeResponse = await held.connection.call(
            held.nodes.AdoptNode, nodes_service_pb2.AdoptNodeRequest(name=name)
        )
        return decoded(decode_node, answer.node)

    async def watch_nodes(self) -> AsyncGenerator[view.NodeView | SnapshotEnd, None]:
        """Show all nodes as they are and then as they change; see `watch`.

        Raises:
            ShoalError: the controller stayed away for too long.
        """
        held = self._held
        revision = 0

        def request() -> nodes_service_pb2.WatchNodesRequest:
            return nodes_service_pb2.WatchNodesRequest(since_revision=revision)

        stream = held.connection.stream(held.nodes.WatchNodes, request, endless=True)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                match response.WhichOneof("change"):
                    case "node":
                        yield decoded(decode_node, response.node)
                    case "snapshot_end":
                        yield SnapshotEnd(response.revision)
                    case _:
                        pass  # something that a newer controller says
                revision = max(revision, response.revision)

    async def members(self, *, everyone: bool = False) -> tuple[view.MemberView, ...]:
        """List the members of the gossip cluster; with `everyone`, dead and left ones too.

        Raises:
            ShoalError: they could not be read.
        """
        held = self._held
        answer: nodes_service_pb2.ListMembersResponse = await held.connection.call(
            held.nodes.ListMembers, nodes_service_pb2.ListMembersRequest(all=everyone)
        )
        return tuple(decoded(decode_member, member) for member in answer.members)

    async def watch_members(self) -> AsyncGenerator[view.MemberView | SnapshotEnd, None]:
        """Show all members as they are, dead and left ones too, and then as they change.

        One that was forgotten, be it during a cut, comes with the state UNKNOWN; see `watch`.

        Raises:
            ShoalError: the controller stayed away for too long.
        """
        held = self._held
        revision = 0
        known: dict[str, view.MemberView] = {}
        shown: set[str] = set()

        def request() -> nodes_service_pb2.WatchMembersRequest:
            shown.clear()  # a snapshot, if there is one, begins now
            return nodes_service_pb2.WatchMembersRequest(since_revision=revision)

        stream = held.connection.stream(held.nodes.WatchMembers, request, endless=True)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                match response.WhichOneof("change"):
                    case "member":
                        member = decoded(decode_member, response.member)
                        shown.add(member.name)
                        if member.state is MemberState.UNKNOWN:
                            known.pop(member.name, None)
                        else:
                            known[member.name] = member
                        yield member
                    case "snapshot_end":
                        for name in sorted(known.keys() - shown):
                            yield dataclasses.replace(known.pop(name), state=MemberState.UNKNOWN)
                        yield SnapshotEnd(response.revision)
                    case _:
                        pass  # something that a newer controller says
                revision = max(revision, response.revision)

    # ---- keys of gossip -------------------------------------------------------------------------

    async def gossip_keys(self) -> view.KeysReport:
        """Ask every member for its keys.

        Raises:
            ShoalError: gossip is not encrypted.
        """
        held = self._held
        answer: keys_service_pb2.ListKeysResponse = await held.connection.call(
            held.keys.ListKeys,
            keys_service_pb2.ListKeysRequest(),
            deadline_seconds=_KEYS_SECONDS,
        )
        return decode_keys_report(answer.report, answer.keys)

    async def install_gossip_key(self, key: bytes) -> view.KeysReport:
        """Have every member install a key that opens, but does not seal yet.

        Raises:
            ShoalError: gossip is not encrypted, or the key has a wrong length.
        """
        held = self._held
        answer: keys_service_pb2.InstallKeyResponse = await held.connection.call(
            held.keys.InstallKey,
            keys_service_pb2.InstallKeyRequest(key=key),
            deadline_seconds=_KEYS_SECONDS,
        )
        return decode_keys_report(answer.report)

    async def use_gossip_key(self, identity: str) -> view.KeysReport:
        """Have every member seal with an installed key, named by the digits of its name.

        Raises:
            ShoalError: gossip is not encrypted, or the controller has no such key.
        """
        held = self._held
        answer: keys_service_pb2.UseKeyResponse = await held.connection.call(
            held.keys.UseKey,
            keys_service_pb2.UseKeyRequest(id=identity),
            deadline_seconds=_KEYS_SECONDS,
        )
        return decode_keys_report(answer.report)

    async def remove_gossip_key(self, identity: str) -> view.KeysReport:
        """Have every member drop a key that none seals with.

        Raises:
            ShoalError: gossip is not encrypted, the key is in use, or there is none.
        """
        held = self._held
        answer: keys_service_pb2.RemoveKeyResponse = await held.connection.call(
            held.keys.RemoveKey,
            keys_service_pb2.RemoveKeyRequest(id=identity),
            deadline_seconds=_KEYS_SECONDS,
        )
        return decode_keys_report(answer.report)


@dataclass(frozen=True, slots=True)
class _Open:
    connection: Connection
    submitter: Submitter
    pipelines: "pipelines_service_pb2_grpc.PipelinesServiceStub"
    nodes: "nodes_service_pb2_grpc.NodesServiceStub"
    keys: "keys_service_pb2_grpc.KeysServiceStub"
    records: "records_service_pb2_grpc.RecordsServiceStub"
    lanes: "lanes_service_pb2_grpc.LanesServiceStub"
    submitting: "asyncio.Task[None]"


async def _write_bundle(call: Any, bundle: PackedBundle) -> None:
    """Send a bundle; when the call has ended early, its own status says why."""
    digest, size_bytes = bundle.digest, bundle.size_bytes
    with (
        await asyncio.to_thread(bundle.path.open, "rb") as file,
        contextlib.suppress(asyncio.InvalidStateError),
    ):
        while (data := await asyncio.to_thread(file.read, _CHUNK_BYTES)) or digest:
            await call.write(
                pipelines_service_pb2.UploadBundleRequest(
                    digest=digest, size_bytes=size_bytes, data=data
                )
            )
            digest, size_bytes = "", 0
        await call.done_writing()


def request_key(*parts: str) -> str:
    """Make an idempotency key out of what makes a submission the same."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
