"""A picture is written once for all watchers, and shows the version that it was made of."""

import sys
from collections.abc import Callable
from dataclasses import replace

from control.front.api.picture import picture_given
from control.front.api.shared_pictures import KEPT, SMALL_BYTES, SharedPictures
from shoal.model import JobState, PipelineState
from shoal.spec import Job, Pipeline
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import JobView, PipelineView
from shoal.wire.view import decode_pipeline

SPEC = Pipeline("many", (Job("say", ("echo", "hello")),))


def pipeline(number: int, progress: str = "") -> PipelineView:
    """A pipeline of one job that runs."""
    job = JobView(f"pipelines/p-{number}/jobs/say", "say", JobState.RUNNING, progress=progress)
    return PipelineView(f"p-{number}", "default", PipelineState.RUNNING, SPEC, jobs=(job,))


def shown(pictures: SharedPictures, *views: PipelineView) -> list[PipelineView]:
    """Return what one more watcher reads."""
    response = v1.WatchPipelinesResponse()
    sizes = [pictures.add(response, view) for view in views]
    assert sizes == [message.ByteSize() for message in response.pipelines]
    sent = v1.WatchPipelinesResponse.FromString(response.SerializeToString())
    return [decode_pipeline(message) for message in sent.pipelines]


def calls_of(act: Callable[[], object]) -> int:
    """Count the calls of Python functions that something takes."""
    count = 0

    def seen(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(seen)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def test_each_watcher_is_shown_the_same_and_writing_it_again_costs_little() -> None:
    pictures = SharedPictures(picture_given)
    views = [pipeline(number) for number in range(20)]
    assert shown(pictures, *views) == views
    assert shown(pictures, *views) == views
    view = pipeline(99)
    first = calls_of(lambda: pictures.add(v1.WatchPipelinesResponse(), view))
    again = calls_of(lambda: pictures.add(v1.WatchPipelinesResponse(), view))
    assert again < first / 3


def test_another_version_is_another_picture() -> None:
    pictures = SharedPictures(picture_given)
    view = pipeline(1)
    assert shown(pictures, view) == [view]
    for state in (PipelineState.RUNNING, PipelineState.SUCCEEDED):
        view = replace(view, state=state, revision=view.revision + 1)
        assert shown(pictures, view) == [view]


def test_very_many_pictures_and_large_ones_are_not_kept() -> None:
    """A view that is gone leaves its identity to another one, which is shown as it is."""
    pictures = SharedPictures(picture_given)
    for number in range(2 * KEPT):
        view = pipeline(number, "x" * SMALL_BYTES if number % 7 == 0 else "")
        assert shown(pictures, view) == [view]
    assert len(pictures._written) <= KEPT  # pyright: ignore[reportPrivateUsage]
