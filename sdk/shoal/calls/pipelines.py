"""Requests about pipelines, their bundles, events and artifacts."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from shoal import spec, view
from shoal.bundle import PackedBundle
from shoal.calls.calls import ControllerCalls, RequestT
from shoal.calls.piece_sending import PieceSending, write_or_cut
from shoal.client_span import client_span
from shoal.connection import Pause, Unary, decoded
from shoal.download import download
from shoal.errors import ShoalError, TooLateError
from shoal.model import Artifact
from shoal.pieces import measure
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import SnapshotEnd
from shoal.wire.fields import encode_time, moment
from shoal.wire.known_specs import encode_known_spec
from shoal.wire.state import decode_artifact
from shoal.wire.view import decode_event, decode_pipeline, decode_verdict

_SUBMIT = "shoal.v1.PipelinesService/SubmitPipelines"
_CHUNK_BYTES = 1024 * 1024
_SLOWEST_UPLOAD_BYTES_PER_SECOND = 50_000
_PIECES_MIN = 2
_TRAVELS_WHOLE = frozenset({"UNIMPLEMENTED", "UPLOADS_FULL"})


@dataclass(frozen=True, slots=True)
class Submitted:
    """The pipeline as recorded, and whether an earlier submission with the same key made it."""

    pipeline: view.PipelineView
    repeated: bool


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, oldest first, and how the controller stands with its broker."""

    events: tuple[view.Event, ...]
    publisher_state: str
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class EventNews:
    """What a watch of events tells at once: some events in their order, or none.

    `sequence` is how far it has come. With `caught_up` all has been told that was recorded when the watch began. With
    `missing` events between the one that was asked for and these are not remembered any more.
    """

    events: tuple[view.Event, ...]
    sequence: int
    caught_up: bool
    missing: bool = False


class PipelineCalls(ControllerCalls):
    """What can be asked of pipelines."""

    async def submit(
        self, pipeline: spec.Pipeline, *, request_id: str = "", traceparent: str = ""
    ) -> Submitted:
        """Record a pipeline; concurrent calls travel in batches.

        Args:
            pipeline: what to run; its bundle has to be there already, see `ensure_bundle`.
            request_id: idempotency key; without one, only retries of this call are recognised.
            traceparent: where in a trace it is submitted, as W3C writes it; without one, in a span of its own where
                the program makes spans of OpenTelemetry.

        Raises:
            ShoalError: it was refused, or the same key was used for another specification.
        """
        with contextlib.ExitStack() as span:
            within = traceparent or span.enter_context(client_span(_SUBMIT, self.address))
            response = await self._held.submitter.submit(
                self.namespace, request_id or self._new_id(), encode_known_spec(pipeline), within
            )
        return Submitted(decoded(decode_pipeline, response.pipeline), response.repeated_request)

    async def ensure_bundle(self, bundle: PackedBundle) -> bool:
        """Upload a bundle unless the archive has it: what is not known of it from earlier ones.

        An upload that is cut goes on where it was, in this call or in another one.

        Returns:
            Whether it was uploaded.

        Raises:
            ShoalError: the upload failed.
        """
        answer = await self._call(
            self._held.pipelines.FindMissingBundles,
            v1.FindMissingBundlesRequest(digests=[bundle.digest]),
        )
        if bundle.digest not in answer.digests:
            return False
        if len(bundle.ends) < _PIECES_MIN or not await self._upload_pieces(bundle):
            await self._upload(bundle)
        return True

    async def _upload_pieces(self, bundle: PackedBundle) -> bool:
        """Upload a bundle in pieces; False if this controller takes none, or has no room for them."""
        pieces = await asyncio.to_thread(measure, bundle.path, bundle.ends)
        sending = PieceSending(self._held.pipelines, self.namespace, bundle, pieces)
        for last in (False, False, True):
            try:
                await self._call(sending.send, None, deadline_seconds=self._allowed(bundle))
            except ShoalError as error:
                if error.reason in _TRAVELS_WHOLE:
                    return False
                if last or error.reason != "PIECES_MISSING":
                    raise
            else:
                return True
        return False

    def _allowed(self, bundle: PackedBundle) -> float:
        return self._deadline_seconds + bundle.size_bytes / _SLOWEST_UPLOAD_BYTES_PER_SECOND

    async def _upload(self, bundle: PackedBundle) -> None:
        async def upload(
            _request: None,
            *,
            timeout: float | None = None,  # noqa: ASYNC109  # as the methods of a stub call it
        ) -> None:
            call = self._held.pipelines.UploadBundle(timeout=timeout)
            try:
                await _write_bundle(call, bundle)
                await call
            finally:
                call.cancel()

        await self._call(upload, None, deadline_seconds=self._allowed(bundle))

    async def get(self, name: str) -> view.PipelineView:
        """Return one pipeline by name or id.

        Raises:
            ShoalError: there is none.
        """
        request = v1.GetPipelineRequest(name=name, namespace=self.namespace)
        return await self._complete(await self._pipeline(self._held.pipelines.GetPipeline, request))

    async def _pipeline(self, method: Unary[RequestT, Any], request: RequestT) -> view.PipelineView:
        answer = await self._call(method, request)
        return decoded(decode_pipeline, answer.pipeline)

    async def _complete(self, pipeline: view.PipelineView) -> view.PipelineView:
        """Read the artifacts that did not fit into the picture of a pipeline."""
        jobs = [
            replace(
                job,
                manifest=await self._whole(job.name, job.manifest),
                attempts=tuple(
                    [
                        replace(one, manifest=await self._whole(job.name, one.manifest, one.number))
                        for one in job.attempts
                    ]
                ),
            )
            for job in pipeline.jobs
        ]
        return replace(pipeline, jobs=tuple(jobs))

    async def _whole(
        self, name: str, manifest: view.Manifest | None, attempt: int = 0
    ) -> view.Manifest | None:
        if manifest is None or not manifest.left_out:
            return manifest
        found = list(manifest.artifacts)
        pages = self._pages(
            self._held.pipelines.ListArtifacts,
            lambda token: v1.ListArtifactsRequest(
                name=name, namespace=self.namespace, page_token=token, attempt=attempt
            ),
            str(len(found)),
        )
        async for page in pages:
            found += [decoded(decode_artifact, one) for one in page.artifacts]
        return replace(manifest, artifacts=tuple(found), left_out=0)

    async def cancel(self, name: str, reason: str = "") -> view.PipelineView:
        """Ask for the end of a pipeline, and return how it stands right after.

        Raises:
            ShoalError: there is none.
        """
        request = v1.CancelPipelineRequest(name=name, namespace=self.namespace, reason=reason)
        return await self._pipeline(self._held.pipelines.CancelPipeline, request)

    async def finish(self, name: str) -> view.PipelineView:
        """Ask the sources of a pipeline to end, and return how it stands right after.

        Sources are the jobs without stream inputs. What they have sent is processed and archived,
        and the pipeline ends as it would have by itself. Asking again changes nothing.

        Raises:
            ShoalError: there is none.
        """
        request = v1.FinishPipelineRequest(name=name, namespace=self.namespace)
        return await self._pipeline(self._held.pipelines.FinishPipeline, request)

    async def revive(self, name: str) -> Submitted:
        """Run the specification and the bundle of a dead letter again, as a new pipeline.

        The same letter makes one pipeline, however often it is asked for.

        Raises:
            ShoalError: there is no such pipeline, or it is no dead letter.
        """
        answer = await self._call(
            self._held.pipelines.RevivePipeline,
            v1.RevivePipelineRequest(name=name, namespace=self.namespace),
        )
        return Submitted(decoded(decode_pipeline, answer.pipeline), answer.repeated_request)

    async def discard(self, name: str) -> view.PipelineView:
        """Let a dead letter be forgotten as other pipelines are, and return it as it is then.

        Raises:
            ShoalError: there is no such pipeline, or it is no dead letter.
        """
        request = v1.DiscardDeadLetterRequest(name=name, namespace=self.namespace)
        return await self._pipeline(self._held.pipelines.DiscardDeadLetter, request)

    async def scale(self, name: str, job: str, replicas: int) -> view.PipelineView:
        """Change the number of replicas of a job, by its name in the specification.

        It returns once that is recorded: then `scales[-1]` is HOLDING, and the new replicas begin
        once it is SETTLED. Asking again for the same changes nothing.

        Raises:
            ShoalError: there is no such pipeline or job, it cannot be scaled, or there is no room.
        """
        request = v1.ScaleJobRequest(
            name=name, namespace=self.namespace, job=job, replicas=replicas
        )
        return await self._pipeline(self._held.pipelines.ScaleJob, request)

    def watch(self, name: str = "") -> AsyncGenerator[view.PipelineView | SnapshotEnd, None]:
        """Show one pipeline, or all, as they are and then as they change.

        After a cut it goes on behind the last revision that was shown; a picture may come twice.
        Close it with `contextlib.aclosing` when you stop early.

        Raises:
            ShoalError: the pipeline is unknown, or the controller stayed away for too long.
        """
        return self._watch(
            self._held.pipelines.WatchPipelines,
            lambda revision: v1.WatchPipelinesRequest(
                namespace=self.namespace, name=name, since_revision=revision, together=True
            ),
            "pipeline",
            decode_pipeline,
            several="pipelines",
        )

    async def when(
        self, name: str, holds: Callable[[view.PipelineView], bool]
    ) -> view.PipelineView:
        """Watch a pipeline until something holds of it, and return how it stands then.

        Raises:
            ShoalError: it is unknown, or the controller stayed away.
        """
        async with contextlib.aclosing(self.watch(name)) as changes:
            async for change in changes:
                if isinstance(change, view.PipelineView) and holds(change):
                    return change
        raise ShoalError("WATCH_ENDED", f"the watch of {name} ended early; try again")

    async def wait(self, name: str, *, deadline_seconds: float | None = None) -> view.PipelineView:
        """Wait until a pipeline has ended.

        Raises:
            ShoalError: it is unknown, did not end in time, or the controller stayed away.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                ended = await self.when(name, lambda pipeline: pipeline.state.terminal)
                return await self._complete(ended)
        except TimeoutError:
            raise TooLateError(f"{name} did not end", deadline_seconds or 0.0) from None

    async def explain(self, name: str) -> tuple[view.NodeVerdict, ...]:
        """Say for each node why a job (`pipelines/{p}/jobs/{j}`) is or is not placed there.

        Raises:
            ShoalError: there is no such job.
        """
        answer = await self._call(
            self._held.pipelines.ExplainJob,
            v1.ExplainJobRequest(name=name, namespace=self.namespace),
        )
        return tuple(decode_verdict(verdict) for verdict in answer.verdicts)

    async def events(
        self,
        name: str = "",
        *,
        page_token: str = "",
        page_size: int = 100,
        types: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        newest_first: bool = False,
    ) -> EventPage:
        """Return one page of events, of one pipeline or of all, oldest first unless `newest_first`.

        A page may have few events, or none, and a token all the same: more may follow.

        Args:
            name: `pipelines/{p}`, or an id; empty for all.
            page_token: of the page before, or the `sequence` of an event that others are to follow.
            page_size: at most so many.
            types: only these: `shoal.job.failed`, or `shoal.job.*` for all that begin so.
            since: only what was recorded then or later, by the controller's clock; aware.
            until: only what was recorded before; aware.
            newest_first: in the other order.

        Raises:
            ShoalError: they could not be read.
        """
        answer = await self._call(
            self._held.pipelines.ListEvents,
            v1.ListEventsRequest(
                namespace=self.namespace,
                name=name,
                page_size=page_size,
                page_token=page_token,
                types=types,
                since_time=encode_time(since),
                until_time=encode_time(until),
                newest_first=newest_first,
            ),
        )
        return EventPage(
            tuple(decoded(decode_event, event) for event in answer.events),
            answer.publisher_state,
            answer.next_page_token,
        )

    async def artifacts(
        self, name: str, *, urls: bool = False, page_size: int = 0
    ) -> AsyncGenerator[view.ListedArtifact, None]:
        """List what a job, or each job of a pipeline, has committed: by job and path, page by page.

        Args:
            name: of a job, or of a pipeline.
            urls: get an address for each, too; those of a page are good for as long as each other.
            page_size: most artifacts of a page; 0 for as many as the controller gives.

        Raises:
            ShoalError: there is none of that name, or a page could not be read.
        """
        pages = self._pages(
            self._held.pipelines.ListArtifacts,
            lambda token: v1.ListArtifactsRequest(
                name=name,
                namespace=self.namespace,
                page_token=token,
                page_size=page_size,
                urls=urls,
            ),
        )
        try:
            async for page in pages:
                end = moment(page, "url_end_time", "")
                for said in page.listed:
                    artifact = decoded(decode_artifact, said.artifact)
                    yield view.ListedArtifact(artifact, said.job, said.attempt, said.url, end)
                # Of one job without addresses, or from a controller of before.
                for one in page.artifacts:
                    artifact = decoded(decode_artifact, one)
                    url = await self.artifact_url(artifact) if urls else ""
                    yield view.ListedArtifact(artifact, name.rpartition("/")[2], url=url)
        except ShoalError as error:
            if error.reason != "INVALID_NAME" or "/" in name.removeprefix("pipelines/"):
                raise
            # A controller of before lists the artifacts of one job alone.
            for job in (await self.get(name)).jobs:
                if job.artifacts:
                    async with contextlib.aclosing(self.artifacts(job.name, urls=urls)) as found:
                        async for listed in found:
                            yield listed

    async def watch_events(
        self,
        name: str = "",
        *,
        types: Sequence[str] = (),
        after: int = 0,
        since: datetime | None = None,
    ) -> AsyncGenerator[EventNews, None]:
        """Tell events that were recorded, then each one as it is recorded: all, in order, each once.

        After a cut it goes on behind the last one, also at a controller that was started anew. `after=news.sequence`
        goes on behind what another watch of the same events told last.

        Args:
            name: `pipelines/{p}`, or an id; empty for all.
            types: only these, as in `events`.
            after: behind this `sequence`; 0 for all that are remembered.
            since: without `after`, from the first one on that was recorded then or later; aware.

        Raises:
            ShoalError: it was refused, or the controller stayed away for too long.
        """
        place = after

        def request() -> v1.WatchEventsRequest:
            return v1.WatchEventsRequest(
                namespace=self.namespace,
                name=name,
                types=types,
                after_sequence=place,
                since_time=encode_time(since),
            )

        stream = self._held.connection.stream(
            self._held.pipelines.WatchEvents, request, endless=True
        )
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                found = tuple(decoded(decode_event, event) for event in response.events)
                place = response.sequence
                yield EventNews(found, place, response.caught_up, response.missing)

    async def artifact_url(self, artifact: Artifact) -> str:
        """Return an address under which an artifact can be read for a while.

        Raises:
            ShoalError: the archive does not have it.
        """
        answer = await self._call(
            self._held.pipelines.GetArtifactUrl,
            v1.GetArtifactUrlRequest(key=artifact.key, namespace=self.namespace),
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
                await asyncio.to_thread(
                    download, url, target, sha256=artifact.sha256, authorities=self._authorities
                )
            except ShoalError:
                if last:
                    raise
                await pause.wait()
            else:
                return


async def _write_bundle(call: Any, bundle: PackedBundle) -> None:
    """Send a bundle; when the call has ended early, its own status says why."""
    digest, size_bytes = bundle.digest, bundle.size_bytes
    with (
        await asyncio.to_thread(bundle.path.open, "rb") as file,
        contextlib.suppress(asyncio.InvalidStateError),
    ):
        while (data := await asyncio.to_thread(file.read, _CHUNK_BYTES)) or digest:
            await write_or_cut(
                call, v1.UploadBundleRequest(digest=digest, size_bytes=size_bytes, data=data)
            )
            digest, size_bytes = "", 0
        await call.done_writing()
