"""What of a specification has columns of its own, so that pipelines are listed without it."""

from collections.abc import Iterable, Mapping

from control.store.table import as_json
from shoal.model import JobState


def labels_of(labels: Mapping[str, str]) -> str:
    """The labels as the store has them."""
    return as_json(dict(sorted(labels.items()))) if labels else "{}"


def job_counts_of(replicas: Iterable[int]) -> str:
    """The counts of jobs by state, as the store has them, of a pipeline that was just submitted."""
    return f"[[{int(JobState.QUEUED)},{sum(count or 1 for count in replicas)}]]"
