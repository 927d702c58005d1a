"""Dead letters as the commands choose them."""

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from shoal.model import JobState
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.view import JobView, PipelineView

if TYPE_CHECKING:
    from shoal.client import Client

_PAGE = 1_000


def letters(
    client: "Client", where: PipelineFilter = EVERY_PIPELINE
) -> AsyncGenerator[PipelineView, None]:
    """List the dead letters of the namespace, the newest first: all, or those that match."""
    return client.list(page_size=_PAGE, dead_letters=True, where=where)


def dead_jobs(pipeline: PipelineView) -> Sequence[JobView]:
    """The jobs of a pipeline that failed for good; the others ended because of them."""
    return [job for job in pipeline.jobs if job.state is JobState.FAILED]
