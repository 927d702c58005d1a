"""Pictures of pipelines that many watchers are shown: each version is written once for all of them.

Rules. A picture is found by the view that it shows, by identity: the same view is the same version. The view is held
beside it, so that no other object has its identity. What a watcher was shown waits as bytes for the next one, and to
read bytes into a message costs a sixth of making them.

Bounds. The last `KEPT` of those that have up to `SMALL_BYTES`; a larger one is written again for each watcher, with
the jobs that `shoal.wire.known_jobs` knows.
"""

from collections.abc import Callable
from typing import Any, Final

from shoal.v1 import overview_service_pb2 as overview
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import PipelineSummary, PipelineView

KEPT: Final = 1024
SMALL_BYTES: Final = 16 * 1024


class SharedPictures:
    """Puts pictures into messages of watches.

    Args:
        given: returns what a message is given that carries a picture.
    """

    def __init__(self, given: Callable[[Any], Any]) -> None:
        self.given = given
        self._written: dict[int, tuple[PipelineView | PipelineSummary, bytes]] = {}

    def add(
        self,
        response: v1.WatchPipelinesResponse | overview.WatchOverviewResponse,
        view: PipelineView | PipelineSummary,
    ) -> int:
        """Add the picture of a pipeline to a message; returns its bytes."""
        known = self._written.get(id(view))
        if known is not None:
            response.pipelines.add().MergeFromString(known[1])
            return len(known[1])
        data = response.pipelines.add(**self.given(view)).SerializeToString()
        if len(data) <= SMALL_BYTES:
            self._written[id(view)] = (view, data)
            if len(self._written) > KEPT:
                del self._written[next(iter(self._written))]
        return len(data)
