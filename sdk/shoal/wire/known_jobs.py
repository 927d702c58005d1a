"""The jobs of a large pipeline, of which few differ from one picture of it to the next.

Theory. A picture shows all jobs, and each of a thousand jobs changes four times: without this, a thousand jobs cost a
million times what one costs to be written, and as much to be read.

Rules. The last picture of a pipeline is kept: its jobs as they were written, by their identity, or as they were read,
by their bytes. A job that is the same stands for itself in the next picture.

Bounds. The last pictures of a few pipelines, each as large as the pipeline is.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from shoal.v1 import pipeline_pb2
from shoal.view import JobView

JOBS_MIN: Final = 16
"""A pipeline with fewer jobs is not large."""

PIPELINES_KEPT: Final = 8

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class LastPictures(Generic[KeyT, ValueT]):
    """What was made of the jobs of the pipelines that were shown last, by pipeline and job."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, dict[KeyT, ValueT]] = OrderedDict()

    def of(self, pipeline: str) -> dict[KeyT, ValueT]:
        """Return what was made for the last picture of a pipeline."""
        return self._pictures.get(pipeline, {})

    def keep(self, pipeline: str, made: dict[KeyT, ValueT]) -> None:
        """Keep it in place of that of the picture before."""
        self._pictures.pop(pipeline, None)
        self._pictures[pipeline] = made
        while len(self._pictures) > PIPELINES_KEPT:
            self._pictures.popitem(last=False)


class KnownJobs:
    """Writes and reads the jobs of pictures.

    Args:
        encode: writes a job.
        decode: reads the job that stands at a path.
    """

    def __init__(
        self,
        encode: Callable[[JobView], pipeline_pb2.Job],
        decode: Callable[[pipeline_pb2.Job, str], JobView],
    ) -> None:
        self._encode = encode
        self._decode = decode
        # With the view itself, so that no other one has its identity.
        self._written: LastPictures[int, tuple[JobView, pipeline_pb2.Job]] = LastPictures()
        self._read: LastPictures[bytes, JobView] = LastPictures()

    def write(self, views: Sequence[JobView]) -> list[pipeline_pb2.Job]:
        """Write the jobs of one pipeline; the messages are shared, and copied into the one of the pipeline."""
        pipeline = views[0].name.partition("/jobs/")[0]
        known = self._written.of(pipeline)
        written = [known.get(id(view)) or (view, self._encode(view)) for view in views]
        self._written.keep(pipeline, {id(one[0]): one for one in written})
        return [message for _, message in written]

    def read(
        self, pipeline: str, messages: Sequence[pipeline_pb2.Job], path: str
    ) -> tuple[JobView, ...]:
        """Read the jobs of one pipeline.

        Raises:
            WireError: a field breaks the contract.
        """
        known = self._read.of(pipeline)
        made: dict[bytes, JobView] = {}
        views: list[JobView] = []
        for index, message in enumerate(messages):
            data = message.SerializeToString()
            view = known.get(data) or self._decode(message, f"{path}[{index}]")
            made[data] = view
            views.append(view)
        self._read.keep(pipeline, made)
        return tuple(views)
