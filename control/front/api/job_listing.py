"""The jobs of many pipelines, page by page: such as those on one node, or those that failed.

Rule. Pipelines come newest first, and the jobs of each in its order, which a scale only adds to. A page ends behind a
job, by the position of its pipeline and its place there, so that a list stays right while others come and go.

Bound. A page looks at `_LOOKED_AT` pipelines of those that may have such jobs, and ends there, even empty: a
pipeline that has ended is read from the store with all its attempts.
"""

from dataclasses import dataclass, replace
from typing import Final

from control.core.pipeline_query import PageKey, PipelineQuery
from control.front.api.picture import short_job
from control.front.api.pipeline_listing import filter_of
from control.front.api.request import namespace_of, page_size_of, pipeline_of
from control.front.page_token import PageTokens
from control.front.read_model import ReadModel
from shoal import limits
from shoal.model import JobState, PipelineState
from shoal.names import check_id
from shoal.v1 import pipeline_pb2
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import JobView
from shoal.wire.pipeline_filter import job_states
from shoal.wire.view import encode_job

_LOOKED_AT: Final = 200
_AT_ONCE: Final = 50
_OPEN: Final = frozenset(state for state in PipelineState if not state.terminal)
_ENDED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which jobs of a pipeline are listed."""

    node: str
    states: frozenset[JobState]

    def has(self, job: JobView) -> bool:
        if self.node and (not job.attempts or job.attempts[-1].node != self.node):
            return False
        return not self.states or job.state in self.states


async def list_jobs(shown: ReadModel, request: v1.ListJobsRequest) -> v1.ListJobsResponse:
    """List jobs as a request asks for them."""
    node = check_id("node", request.node) if request.node else ""
    wanted = _Wanted(node, job_states(request.states))
    query = _query(request, wanted)
    size = page_size_of(request.page_size)
    tokens = PageTokens("ListJobs", request)
    key = tokens.read(int, 1, 2)
    behind, resumed, place = _begin(key)
    if query is None:
        return v1.ListJobsResponse()
    said: list[pipeline_pb2.Job] = []
    room = limits.BATCH_BYTES_MAX
    if request.pipeline:
        await shown.find(pipeline_of(request.pipeline, request.namespace))
    for _ in range(_LOOKED_AT // _AT_ONCE):
        page = await shown.pipelines(query, _AT_ONCE, behind)
        for position, view in zip(page.keys, page.items, strict=True):
            first = place if position == resumed else 0
            for number, job in enumerate(view.jobs[first:], first):
                if not wanted.has(job):
                    continue
                if len(said) == size or room <= 0:
                    here = tokens.write((*position, number))
                    return v1.ListJobsResponse(jobs=said, next_page_token=here)
                said.append(encode_job(short_job(job)))
                room -= said[-1].ByteSize()
        behind = page.behind
        if behind is None:
            break
    return v1.ListJobsResponse(jobs=said, next_page_token=tokens.write(behind))


def _begin(key: tuple[int, ...] | None) -> tuple[PageKey | None, PageKey | None, int]:
    """Return behind what to look, which pipeline was begun, and the place of its next job."""
    match key:
        case (position, place):
            return (position + 1,), (position,), place
        case _:
            return key, None, 0


def _query(request: v1.ListJobsRequest, wanted: _Wanted) -> PipelineQuery | None:
    """Return which pipelines may have such jobs; None if none can."""
    namespace = namespace_of(request.namespace)
    asked = filter_of(request)
    if wanted.states and not wanted.states & _ENDED:
        # Of one that has ended, all jobs have.
        states = (asked.states or _OPEN) & _OPEN
        if not states:
            return None
        asked = replace(asked, states=states)
    among = None
    if request.pipeline:
        among = {pipeline_of(request.pipeline, namespace).pipeline}
    return PipelineQuery(
        namespace, asked, among=among, ever_on=wanted.node, job_states=wanted.states
    )
