"""The pipelines of the control plane over gRPC."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from control.core.answers import Refusal
from control.core.call_note import CallNote
from control.core.errors import ControlError
from control.front.access.checked_call import bound_to, note_of
from control.front.api import submissions
from control.front.api.artifact_page import ArtifactQuery, page_of_job, page_of_pipeline
from control.front.api.bundle_upload import check_digest, take_bundle
from control.front.api.job_listing import list_jobs
from control.front.api.light_picture import light_given, light_picture, unlisted_given
from control.front.api.log_reading import LogQuery, LogReading
from control.front.api.picture import picture, picture_given
from control.front.api.pipeline_listing import filter_of, is_light, list_pipelines
from control.front.api.request import (
    event_query,
    job_of,
    namespace_of,
    page_size_of,
    pipeline_of,
)
from control.front.api.shared_pictures import SharedPictures
from control.front.api.watch_pace import HOLD_SECONDS, WatchPace
from control.front.bundles.piece_uploads import PieceUploads
from control.front.control_plane import ControlPlane
from control.front.folder_listings import FolderListings
from control.front.log_folder import LOG_BYTES_MAX, LogFolder
from control.front.object_key import bundle_key
from control.front.read_model import PipelineShown
from control.front.rpc_status import invalid
from control.front.source_rule import SourceRule
from control.front.watch import Changes
from control.leader.garbage_collector import GarbageCollector
from control.leader.publishing import Publishing
from services.archive.key import check_key
from services.archive.object_store import ObjectMissingError, ObjectStore
from services.runtime.rpc import RpcError, rpc_error
from shoal import limits
from shoal.names import AttemptRef, PipelineRef, check_id, parse_attempt
from shoal.pipeline_filter import PipelineFilter
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.v1 import pipelines_service_pb2_grpc as v1_grpc
from shoal.view import LogChunk, LogStream, PipelineView, SnapshotEnd, Unlisted
from shoal.wire.fields import moment
from shoal.wire.pipeline_filter import encode_totals
from shoal.wire.state import encode_artifact
from shoal.wire.view import encode_event, encode_log_chunk, encode_verdict

REASON_CHARACTERS_MAX = 1000
DIGESTS_MAX = 10_000
SUBMISSIONS_MAX = 1000
"""Most submissions of one message of a stream; more than one message is recorded at once."""

URLS_MAX = 1000
"""Most addresses of a page: each takes half a millisecond to sign for S3."""

_SIGNED_TOGETHER = 8
_SUBMISSIONS_TOGETHER = 256
_PICTURES_TOGETHER = 256
_REQUESTS_WAITING = 16
_ANSWERS_WAITING = 16

_Answers = Awaitable[list[v1.SubmitPipelinesResponse]]
Context = grpc.aio.ServicerContext[Any, Any]


class PipelinesService(v1_grpc.PipelinesServiceServicer):
    """Answers people and dashboards; everything it decides is what a field may be.

    Args:
        plane: records, knows and shows pipelines.
        store: the archive, for bundles and addresses of artifacts.
        logs: what attempts print.
        publishing: knows how it stands with the broker.
        rule: which sources of file inputs may be read.
        uploads: takes bundles in pieces.
        listings: finds the files of folder inputs.
        garbage: spares a bundle that a client was told to be there.
        wall: seconds since 1970.
        url_expires_seconds: how long the address of an artifact is good.

    Attributes:
        pictures: of pipelines, for all watches.
        light_pictures: light ones.
    """

    def __init__(
        self,
        plane: ControlPlane,
        store: ObjectStore,
        logs: LogFolder,
        publishing: Publishing,
        rule: SourceRule,
        uploads: PieceUploads,
        listings: FolderListings,
        garbage: GarbageCollector,
        *,
        wall: Callable[[], float],
        url_expires_seconds: int,
    ) -> None:
        self._plane = plane
        self._store = store
        self._logs = logs
        self._publishing = publishing
        self._rule = rule
        self._uploads = uploads
        self._listings = listings
        self._garbage = garbage
        self._wall = wall
        self._url_expires_seconds = url_expires_seconds
        self.pictures = SharedPictures(picture_given)
        self.light_pictures = SharedPictures(light_given)

    async def SubmitPipeline(
        self, request: v1.SubmitPipelineRequest, context: Context
    ) -> v1.SubmitPipelineResponse:
        """Record one pipeline; durable when it returns."""
        (outcome,) = await submissions.submit(
            self._plane, self._rule, self._listings, [request], note_of(context)
        )
        if isinstance(outcome, RpcError):
            raise outcome
        return v1.SubmitPipelineResponse(**outcome)

    # gRPC takes a coroutine that writes as well as a generator; the stubs know the generator only.
    async def SubmitPipelines(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[v1.SubmitPipelinesRequest], context: Context
    ) -> None:
        """Record what comes while the last commit was under way together, and answer in order.

        What waits for the files of folder inputs keeps later answers waiting, and no later record.
        """
        waiting: asyncio.Queue[v1.SubmitPipelinesRequest | None] = asyncio.Queue(_REQUESTS_WAITING)
        answers: asyncio.Queue[_Answers | None] = asyncio.Queue(_ANSWERS_WAITING)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_read_all(context, waiting))
            tasks.create_task(_answer_all(context, answers))
            ended = False
            while not ended:
                requests, ended = await _together(waiting)
                recorded = asyncio.Event()
                answer = self._record(requests, note_of(context), recorded)
                await answers.put(tasks.create_task(answer))
                await recorded.wait()
            await answers.put(None)

    async def _record(
        self,
        requests: list[v1.SubmitPipelinesRequest],
        note: CallNote | None,
        recorded: asyncio.Event,
    ) -> list[v1.SubmitPipelinesResponse]:
        flat = [one for request in requests for one in request.requests]
        try:
            outcomes = await submissions.submit(
                self._plane, self._rule, self._listings, flat, note, recorded.set
            )
        except ControlError as error:
            outcomes = submissions.refused_all(error, len(flat))
        encoded = iter([submissions.outcome_given(outcome) for outcome in outcomes])
        return [
            v1.SubmitPipelinesResponse(outcomes=[next(encoded) for _ in request.requests])
            for request in requests
        ]

    async def GetPipeline(
        self, request: v1.GetPipelineRequest, context: Context
    ) -> v1.GetPipelineResponse:
        """Return one pipeline with its jobs."""
        ref = pipeline_of(request.name, request.namespace)
        if is_light(request.view):
            summary = await self._plane.shown.summary(ref)
            return v1.GetPipelineResponse(pipeline=light_picture(summary))
        return v1.GetPipelineResponse(pipeline=picture(await self._plane.shown.find(ref)))

    async def ListPipelines(
        self, request: v1.ListPipelinesRequest, context: Context
    ) -> v1.ListPipelinesResponse:
        """List pipelines, in the order that is asked for."""
        return await list_pipelines(self._plane.shown, request)

    async def CountPipelines(
        self, request: v1.CountPipelinesRequest, context: Context
    ) -> v1.CountPipelinesResponse:
        """Count pipelines and their jobs by state."""
        namespace = namespace_of(request.namespace)
        return encode_totals(await self._plane.shown.totals(namespace, filter_of(request)))

    async def ListJobs(self, request: v1.ListJobsRequest, context: Context) -> v1.ListJobsResponse:
        """List jobs of pipelines."""
        return await list_jobs(self._plane.shown, request)

    async def CancelPipeline(
        self, request: v1.CancelPipelineRequest, context: Context
    ) -> v1.CancelPipelineResponse:
        """Record that a pipeline shall end."""
        ref = pipeline_of(request.name, request.namespace)
        if len(request.reason) > REASON_CHARACTERS_MAX:
            raise invalid(
                "INVALID_FIELD",
                f"the reason has {len(request.reason)} characters; "
                f"use at most {REASON_CHARACTERS_MAX}",
                field="reason",
            )
        view = await self._plane.cancel(ref, request.reason, note_of(context))
        return v1.CancelPipelineResponse(pipeline=picture(view))

    async def FinishPipeline(
        self, request: v1.FinishPipelineRequest, context: Context
    ) -> v1.FinishPipelineResponse:
        """Record that the sources of a pipeline shall end."""
        view = await self._plane.finish(
            pipeline_of(request.name, request.namespace), note_of(context)
        )
        return v1.FinishPipelineResponse(pipeline=picture(view))

    async def RevivePipeline(
        self, request: v1.RevivePipelineRequest, context: Context
    ) -> v1.RevivePipelineResponse:
        """Record a pipeline that runs the specification of a dead letter again."""
        ref = pipeline_of(request.name, request.namespace)
        view = await self._plane.shown.find(ref)
        problem = self._rule.problem(ref.namespace, view.spec)  # which may be another one by now
        if problem is not None:
            path, why = problem
            raise invalid("INVALID_SOURCE", f"{path}: {why}", **{path: why})
        digest = view.spec.bundle_digest
        if digest and not view.revived_by and not await self._garbage.has(bundle_key(digest)):
            raise rpc_error(
                grpc.StatusCode.FAILED_PRECONDITION,
                "BUNDLE_MISSING",
                f"bundle {digest} of {ref.name} is not in the archive any more: submit its folder again",
                {"pipeline": ref.name, "bundle": digest},
            )
        answer = await self._plane.revive(ref, note_of(context))
        if isinstance(answer, Refusal):
            raise submissions.refused(answer)
        return v1.RevivePipelineResponse(
            pipeline=picture(answer.view), repeated_request=answer.repeated
        )

    async def DiscardDeadLetter(
        self, request: v1.DiscardDeadLetterRequest, context: Context
    ) -> v1.DiscardDeadLetterResponse:
        """Record that a dead letter is not kept any longer."""
        ref = pipeline_of(request.name, request.namespace)
        answer = await self._plane.discard(ref, note_of(context))
        if isinstance(answer, Refusal):
            raise submissions.refused(answer)
        return v1.DiscardDeadLetterResponse(pipeline=picture(answer))

    async def ScaleJob(self, request: v1.ScaleJobRequest, context: Context) -> v1.ScaleJobResponse:
        """Record that a job shall have another number of replicas."""
        ref = pipeline_of(request.name, request.namespace)
        answer = await self._plane.scale(
            ref, check_id("job", request.job), request.replicas, note_of(context)
        )
        if isinstance(answer, Refusal):
            raise submissions.refused(answer)
        return v1.ScaleJobResponse(pipeline=picture(answer))

    async def WatchPipelines(
        self, request: v1.WatchPipelinesRequest, context: Context
    ) -> AsyncIterator[v1.WatchPipelinesResponse]:
        """Show pipelines as they are, a mark, and then what changes."""
        namespace = namespace_of(request.namespace)
        asked, light = filter_of(request), is_light(request.view)
        if asked.node:
            self._plane.shown.node(asked.node)  # an unknown one would never have an attempt
        pipeline = ""
        if request.name:
            ref = pipeline_of(request.name, namespace)
            await self._plane.shown.find(ref)  # an unknown one would never change
            pipeline = ref.pipeline
        at_once = _PICTURES_TOGETHER if request.together else 1
        with self._plane.watch_pipelines(
            namespace, pipeline, request.since_revision, at_once=at_once, asked=asked, light=light
        ) as changes:
            pictures = self.light_pictures if light else self.pictures
            async for response in _shown(changes, pictures, asked, together=request.together):
                yield response

    async def ReadLogs(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: v1.ReadLogsRequest, context: Context
    ) -> None:
        """Send what the attempts of a pipeline, or of one of its jobs, printed and print."""

        async def send(chunk: LogChunk) -> None:
            await context.write(v1.ReadLogsResponse(chunk=encode_log_chunk(chunk)))

        query = _log_query(request)
        await LogReading(self._plane, self._logs, query, send, self._wall).run()

    async def ExplainJob(
        self, request: v1.ExplainJobRequest, context: Context
    ) -> v1.ExplainJobResponse:
        """Say for each node why a job is or is not placed there."""
        verdicts = await self._plane.explain(job_of(request.name, request.namespace))
        return v1.ExplainJobResponse(verdicts=[encode_verdict(verdict) for verdict in verdicts])

    async def ListEvents(
        self, request: v1.ListEventsRequest, context: Context
    ) -> v1.ListEventsResponse:
        """List events, and say how it stands with the broker."""
        query = event_query(request.name, request.namespace, request.types, bound=bound_to(context))
        page = await self._plane.events(
            replace(
                query,
                since=moment(request, "since_time", ""),
                until=moment(request, "until_time", ""),
            ),
            page_size_of(request.page_size),
            request.page_token,
            newest_first=request.newest_first,
        )
        explained = self._publishing.explained(query.namespace, page.items)
        return v1.ListEventsResponse(
            events=[encode_event(event) for event in explained],
            next_page_token=page.next_page_token,
            publisher_state=await self._publishing.sentence(),
        )

    async def WatchEvents(
        self, request: v1.WatchEventsRequest, context: Context
    ) -> AsyncIterator[v1.WatchEventsResponse]:
        """Tell events that were recorded, and then each one as it is recorded."""
        query = event_query(request.name, request.namespace, request.types, bound=bound_to(context))
        since = moment(request, "since_time", "")
        begin = await self._plane.watch_events(query, request.after_sequence, since)
        missing = begin.missing
        async with aclosing(self._plane.events_shown.follow(query, begin.place)) as told:
            async for read in told:
                yield v1.WatchEventsResponse(
                    events=[encode_event(event) for event in read.events],
                    sequence=read.through,
                    missing=missing,
                    caught_up=read.through >= begin.newest,
                )
                missing = False

    async def FindMissingBundles(
        self, request: v1.FindMissingBundlesRequest, context: Context
    ) -> v1.FindMissingBundlesResponse:
        """Say which bundles have to be uploaded."""
        if len(request.digests) > DIGESTS_MAX:
            raise invalid(
                "INVALID_FIELD",
                f"{len(request.digests)} digests; ask for at most {DIGESTS_MAX} at once",
                field="digests",
            )
        digests = dict.fromkeys(
            check_digest(digest, f"digests[{index}]")
            for index, digest in enumerate(request.digests)
        )
        return v1.FindMissingBundlesResponse(
            digests=[
                digest for digest in digests if not await self._garbage.has(bundle_key(digest))
            ]
        )

    async def UploadBundle(
        self, request_iterator: AsyncIterator[v1.UploadBundleRequest], context: Context
    ) -> v1.UploadBundleResponse:
        """Store a bundle that is what it says it is."""
        digest = await take_bundle(self._store, request_iterator)
        return v1.UploadBundleResponse(digest=digest)

    async def FindMissingPieces(
        self, request: v1.FindMissingPiecesRequest, context: Context
    ) -> v1.FindMissingPiecesResponse:
        """Say which pieces of a bundle have to be sent."""
        return v1.FindMissingPiecesResponse(missing=await self._uploads.find_missing(request))

    async def UploadPieces(
        self, request_iterator: AsyncIterator[v1.UploadPiecesRequest], context: Context
    ) -> v1.UploadPiecesResponse:
        """Store a bundle of pieces that are sent and pieces that are known."""
        return v1.UploadPiecesResponse(digest=await self._uploads.take(request_iterator))

    async def ListArtifacts(
        self, request: v1.ListArtifactsRequest, context: Context
    ) -> v1.ListArtifactsResponse:
        """List what jobs have committed, or what an attempt of one has that did not succeed."""
        query = ArtifactQuery(request.page_token, _artifacts_of(request), request.urls)
        if "/" not in request.name.removeprefix("pipelines/"):
            view = await self._plane.shown.find(pipeline_of(request.name, request.namespace))
            page = page_of_pipeline(view, query)
        else:
            ref = job_of(request.name, request.namespace)
            view = await self._plane.shown.find(ref.pipeline_ref)
            page = page_of_job(view, ref.job, request.attempt, query)
            if not request.urls:
                return v1.ListArtifactsResponse(
                    artifacts=[encode_artifact(one.artifact) for one in page.artifacts],
                    next_page_token=page.next_page_token,
                )
        answer = v1.ListArtifactsResponse(next_page_token=page.next_page_token)
        if request.urls:
            # Read before anything is signed: what is said to be good until then is good for longer.
            end = self._wall() + self._url_expires_seconds
            answer.url_end_time.FromSeconds(int(end))
        for number, one in enumerate(page.artifacts, 1):
            answer.listed.append(
                v1.ListedArtifact(
                    artifact=encode_artifact(one.artifact),
                    job=one.job,
                    attempt=one.attempt,
                    url=await self._url(one.artifact.key) if request.urls else "",
                )
            )
            if number % _SIGNED_TOGETHER == 0:
                await asyncio.sleep(0)
        return answer

    async def GetArtifactUrl(
        self, request: v1.GetArtifactUrlRequest, context: Context
    ) -> v1.GetArtifactUrlResponse:
        """Return an address for a GET of an artifact of the namespace."""
        namespace = namespace_of(request.namespace)
        key = check_key(request.key)
        if not key.startswith(f"{namespace}/"):
            raise rpc_error(
                grpc.StatusCode.PERMISSION_DENIED,
                "OTHER_NAMESPACE",
                f"key {key!r} does not lie in namespace {namespace!r}: name its namespace",
                {"key": key, "namespace": namespace},
            )
        if await self._store.head(key) is None:
            raise ObjectMissingError(key)
        return v1.GetArtifactUrlResponse(url=await self._url(key))

    async def _url(self, key: str) -> str:
        return await self._store.presign_get(key, expires_seconds=self._url_expires_seconds)


def _artifacts_of(request: v1.ListArtifactsRequest) -> int:
    """Return how many artifacts a page may have."""
    if "/" not in request.name.removeprefix("pipelines/") and request.attempt:
        raise invalid(
            "INVALID_FIELD",
            f"attempt is {request.attempt}, and {request.name[:200]!r} names no job: name the job, such as "
            "pipelines/P/jobs/J, or leave attempt out",
            field="attempt",
        )
    most = URLS_MAX if request.urls else limits.SHOWN_ARTIFACTS_MAX
    if request.page_size < 0:
        raise invalid(
            "INVALID_PAGE_SIZE",
            f"page_size is {request.page_size}; use 0 for {most}, which is the most, or less",
            field="page_size",
        )
    return min(request.page_size or most, most)


def _log_query(request: v1.ReadLogsRequest) -> LogQuery:
    for field in ("tail_bytes", "tail_lines"):
        if (number := getattr(request, field)) < 0:
            raise invalid(
                "INVALID_FIELD", f"{field} is {number}; use 0 for all of a log", field=field
            )
    if "/jobs/" in request.name:
        job = job_of(request.name, request.namespace)
        ref, job_id = job.pipeline_ref, job.job
    else:
        ref, job_id = pipeline_of(request.name, request.namespace), ""
    since, until = moment(request, "since_time", ""), moment(request, "until_time", "")
    if since is not None and until is not None and until <= since:
        raise invalid(
            "INVALID_FIELD",
            f"until_time is {until.isoformat()}, and since_time is {since.isoformat()}, so there is nothing "
            "between them; use a later until_time",
            field="until_time",
        )
    return LogQuery(
        ref,
        job_id,
        request.follow,
        tail_bytes=request.tail_bytes,
        tail_lines=request.tail_lines,
        since=since,
        times=request.times,
        until=until,
        places=_places(request, ref),
    )


def _places(
    request: v1.ReadLogsRequest, pipeline: PipelineRef
) -> dict[tuple[AttemptRef, LogStream], int]:
    """Return from where on the logs are wanted that a reader names."""
    if len(request.places) > limits.LOG_PLACES_MAX:
        raise invalid(
            "INVALID_FIELD",
            f"places has {len(request.places):,} entries, and {limits.LOG_PLACES_MAX:,} is the most: leave "
            "out the logs of attempts that have ended, and drop what is known of them",
            field="places",
        )
    found: dict[tuple[AttemptRef, LogStream], int] = {}
    for number, place in enumerate(request.places):
        ref = parse_attempt(place.attempt, pipeline.namespace, place.epoch)
        if ref.pipeline_ref != pipeline:
            raise invalid(
                "INVALID_FIELD",
                f"places[{number}] is in {place.attempt}, which is no attempt of {pipeline.name}: name "
                "attempts as the chunks do",
                field="places",
            )
        if place.stream not in {v1.LOG_STREAM_STDOUT, v1.LOG_STREAM_STDERR}:
            raise invalid(
                "INVALID_FIELD",
                f"places[{number}] says stream {place.stream}; use LOG_STREAM_STDOUT or LOG_STREAM_STDERR",
                field="places",
            )
        # Nothing is kept behind that.
        found[ref, LogStream(place.stream)] = min(place.offset, LOG_BYTES_MAX)
    return found


async def _shown(
    changes: Changes[PipelineShown],
    pictures: SharedPictures,
    asked: PipelineFilter,
    *,
    together: bool,
) -> AsyncIterator[v1.WatchPipelinesResponse]:
    """Write what a watcher is shown; several pictures in a message only if they may come `together`."""
    clock = asyncio.get_running_loop().time
    pace = WatchPace(clock())
    held_until = 0.0
    response = v1.WatchPipelinesResponse()
    room, jobs = limits.BATCH_BYTES_MAX, 0
    async for change in changes:
        if isinstance(change, SnapshotEnd):
            yield v1.WatchPipelinesResponse(snapshot_end=v1.SnapshotEnd(), revision=change.revision)
            continue
        listed = not isinstance(change, Unlisted) and asked.stands(change)
        if listed and isinstance(change, PipelineView):
            jobs += len(change.jobs)
        if together:
            if isinstance(change, Unlisted) or not listed:
                room -= response.pipelines.add(**unlisted_given(change)).ByteSize()
            else:
                room -= pictures.add(response, change)
            if room > 0 and changes.more:
                continue
            response.revision = changes.resume
            yield response
        else:
            given = pictures.given(change) if listed else unlisted_given(change)
            yield v1.WatchPipelinesResponse(pipeline=given, revision=changes.resume)
        count = len(response.pipelines) or 1
        more = not together or room <= 0 or count >= _PICTURES_TOGETHER
        now = clock()
        rest = pace.rest_seconds(now, count, jobs, more=more)
        if rest and changes.resume:  # a snapshot is shown once, as fast as it goes
            if pace.busy and now >= held_until:  # so this message had what goes on, too
                held_until = now + HOLD_SECONDS
                changes.hold(held_until)
            await asyncio.sleep(rest)
        response = v1.WatchPipelinesResponse()
        room, jobs = limits.BATCH_BYTES_MAX, 0


async def _read_all(
    context: Context, waiting: "asyncio.Queue[v1.SubmitPipelinesRequest | None]"
) -> None:
    """Read ahead, so that what comes during a commit is in the next one."""
    while (request := await context.read()) is not grpc.aio.EOF:
        if len(request.requests) > SUBMISSIONS_MAX:
            raise invalid(
                "INVALID_FIELD",
                f"a message has {len(request.requests)} submissions; send at most "
                f"{SUBMISSIONS_MAX}",
                field="requests",
            )
        await waiting.put(request)
    await waiting.put(None)


async def _answer_all(context: Context, answers: "asyncio.Queue[_Answers | None]") -> None:
    """Write answers in the order of what they answer."""
    while (answer := await answers.get()) is not None:
        for response in await answer:
            await context.write(response)


async def _together(
    waiting: "asyncio.Queue[v1.SubmitPipelinesRequest | None]",
) -> tuple[list[v1.SubmitPipelinesRequest], bool]:
    """Wait for a request, and return it with those that wait already; True when all have come."""
    requests: list[v1.SubmitPipelinesRequest] = []
    count = 0
    while not requests or (count < _SUBMISSIONS_TOGETHER and not waiting.empty()):
        request = await waiting.get()
        if request is None:
            return requests, True
        requests.append(request)
        count += len(request.requests)
    return requests, False
