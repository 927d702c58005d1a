"""Requests for lists of pipelines and jobs, and how many there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

from shoal import view
from shoal.calls.calls import ControllerCalls
from shoal.calls.gone import with_gone
from shoal.connection import decoded
from shoal.model import JobState, PipelineState
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.v1 import pipeline_pb2
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import SnapshotEnd
from shoal.wire.pipeline_filter import PIPELINE_ORDER, decode_totals, encode_pipeline_filter
from shoal.wire.state import JOB_STATE, PIPELINE_STATE
from shoal.wire.view import decode_job, decode_pipeline, decode_summary


class ListCalls(ControllerCalls):
    """What can be asked of many pipelines at once."""

    async def list(
        self,
        states: Sequence[PipelineState] = (),
        *,
        page_size: int = 100,
        dead_letters: bool = False,
        where: PipelineFilter = EVERY_PIPELINE,
        order: PipelineOrder = PipelineOrder.NEWEST,
    ) -> AsyncGenerator[view.PipelineView, None]:
        """List pipelines with their jobs, page by page; with `dead_letters` those that are kept as such alone.

        Raises:
            ShoalError: a page could not be read, or the filter cannot be.
        """
        ask = self._asks(
            where, order, page_size, v1.PIPELINE_VIEW_FULL, states, dead_letters=dead_letters
        )
        async for page in self._pages(self._held.pipelines.ListPipelines, ask):
            for pipeline in page.pipelines:
                found = decoded(decode_pipeline, pipeline)
                if where.matches(found):  # which a controller of before does not look at
                    yield found

    async def summaries(
        self,
        where: PipelineFilter = EVERY_PIPELINE,
        *,
        page_size: int = 100,
        order: PipelineOrder = PipelineOrder.NEWEST,
    ) -> AsyncGenerator[view.PipelineSummary, None]:
        """List pipelines without their specifications and jobs, page by page: some hundred bytes each.

        Raises:
            ShoalError: a page could not be read, or the filter cannot be.
        """
        ask = self._asks(where, order, page_size, v1.PIPELINE_VIEW_LIGHT)
        async for page in self._pages(self._held.pipelines.ListPipelines, ask):
            for pipeline in page.pipelines:
                found = decoded(decode_summary, pipeline)
                if isinstance(found, view.PipelineSummary) and where.matches(found):
                    yield found

    def _asks(
        self,
        where: PipelineFilter,
        order: PipelineOrder,
        page_size: int,
        shown: v1.PipelineView.ValueType,
        states: Sequence[PipelineState] = (),
        *,
        dead_letters: bool = False,
    ) -> Callable[[str], v1.ListPipelinesRequest]:
        return lambda token: v1.ListPipelinesRequest(
            namespace=self.namespace,
            page_size=page_size,
            page_token=token,
            states=[PIPELINE_STATE.encode(state) for state in states],
            dead_letters=dead_letters,
            filter=encode_pipeline_filter(where),
            order=PIPELINE_ORDER.encode(order),
            view=shown,
        )

    def watch_summaries(
        self, where: PipelineFilter = EVERY_PIPELINE
    ) -> AsyncGenerator[view.PipelineSummary | view.Unlisted | SnapshotEnd, None]:
        """Show the pipelines that match, without their specifications and jobs, and then what changes.

        One that does not match after a change, or was forgotten, comes as `Unlisted`, whether it was shown before or
        not, and also if that happened during a cut. After a cut it goes on behind the last revision that was shown; see
        `watch`.

        Raises:
            ShoalError: the filter cannot be, or the controller stayed away for too long.
        """

        def decode(message: pipeline_pb2.Pipeline) -> view.PipelineSummary | view.Unlisted:
            found = decode_summary(message)
            if isinstance(found, view.Unlisted) or where.matches(found):
                return found
            return view.Unlisted(found.id, found.namespace)  # of a controller of before

        def gone(
            one: view.PipelineSummary | view.Unlisted,
        ) -> view.PipelineSummary | view.Unlisted:
            return view.Unlisted(one.id, one.namespace)

        return with_gone(
            lambda request: self._watch(
                self._held.pipelines.WatchPipelines,
                request,
                "pipeline",
                decode,
                several="pipelines",
            ),
            lambda revision: v1.WatchPipelinesRequest(
                namespace=self.namespace,
                since_revision=revision,
                together=True,
                filter=encode_pipeline_filter(where),
                view=v1.PIPELINE_VIEW_LIGHT,
            ),
            gone,
            lambda one: isinstance(one, view.Unlisted),
        )

    async def totals(self, where: PipelineFilter = EVERY_PIPELINE) -> view.PipelineTotals:
        """Count pipelines and their jobs by state.

        Raises:
            ShoalError: they could not be counted, or the filter cannot be.
        """
        answer = await self._call(
            self._held.pipelines.CountPipelines,
            v1.CountPipelinesRequest(
                namespace=self.namespace, filter=encode_pipeline_filter(where)
            ),
        )
        return decoded(decode_totals, answer)

    async def jobs(
        self,
        *,
        pipeline: str = "",
        node: str = "",
        states: Sequence[JobState] = (),
        where: PipelineFilter = EVERY_PIPELINE,
        page_size: int = 100,
    ) -> AsyncGenerator[view.JobView, None]:
        """List jobs with their newest attempts: of one pipeline or all, on one node or all, in these states or any.

        Raises:
            ShoalError: a page could not be read, there is no such pipeline, or the filter cannot be.
        """
        pages = self._pages(
            self._held.pipelines.ListJobs,
            lambda token: v1.ListJobsRequest(
                namespace=self.namespace,
                page_size=page_size,
                page_token=token,
                pipeline=pipeline,
                node=node,
                states=[JOB_STATE.encode(state) for state in states],
                filter=encode_pipeline_filter(where),
            ),
        )
        async for page in pages:
            for job in page.jobs:
                yield decoded(decode_job, job)
