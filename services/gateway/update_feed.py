"""What tasks of the edge-analytics dashboard say, for pages that watch them.

The original kept updates in memory, gave each to one page, and forgot them with its process. Here an update is an event
of the controller's store (`shoal.update.*`), which has a place in the order of all of its namespace.

Rule: every page that watches a task gets all of its updates in their order, each once. A page that comes again says the
id of the last one that it got, and goes on behind it, whichever gateway it reaches and whether or not the controller
was restarted in between. Without an id it gets all that the controller remembers.

Each page is a watch of the events of its namespace at the controller, which says nothing while nothing happens.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Self

from services.gateway.contract import OFFERED
from services.gateway.upstream import Upstream
from shoal.errors import ShoalError
from shoal.v1 import pipelines_service_pb2 as v1

_LIST_EVENTS: Final = OFFERED["/shoal.v1.PipelinesService/ListEvents"].upstream
_WATCH_EVENTS: Final = OFFERED["/shoal.v1.PipelinesService/WatchEvents"].upstream
_PAGE: Final = 1000
_QUIET_SECONDS: Final = 15.0
"""After so long without an update a page gets a line that says nothing, so that no proxy takes it for dead."""
_TYPE: Final = "shoal.update."
_EVENT_ID: Final = re.compile(r"[^/]+/(pipelines/[^/]+)/")


@dataclass(frozen=True, slots=True)
class TaskUpdates:
    """Which updates a page wants.

    Attributes:
        namespace: of the task's pipelines.
        user: the task's `userName`.
        task: the task's `taskName`.
        since: the id of the last event that it got, or the `event_id` in one; empty for none.

    Raises:
        ShoalError: no task is named.
    """

    namespace: str
    user: str
    task: str
    since: str

    def __post_init__(self) -> None:
        if not self.user or not self.task:
            raise ShoalError(
                "TASK_MISSING",
                "name the task: /updates?userName=USER&taskName=TASK",
                code="INVALID_ARGUMENT",
            )


class UpdateFeed:
    """Reads updates for pages, each as its own user.

    Args:
        upstream: is asked.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def begin(self, task: TaskUpdates, user: str) -> int:
        """Return the place behind which a page begins.

        Raises:
            ShoalError: the id is that of no event that is remembered, or the controller does not answer.
        """
        since = task.since
        if not since or since.isdecimal():
            return min(int(since or 0), (1 << 63) - 1)
        found = _EVENT_ID.match(since)
        token = ""
        while found is not None:
            page = await self._page(task.namespace, token, user, found[1])
            for event in page.events:
                if event.id == since:
                    return int(event.sequence)
            token = page.next_page_token
            if not token:
                break
        raise ShoalError(
            "UNKNOWN_EVENT",
            f"{since[:120]!r} is the id of no event that is remembered; leave it out to get all",
            code="NOT_FOUND",
        )

    async def follow(
        self, task: TaskUpdates, begin: int, user: str
    ) -> AsyncGenerator[tuple[int, str] | None, None]:
        """Read updates behind a place: their places and their JSON; None after a while without any.

        Raises:
            ShoalError: the controller refuses to tell.
        """
        asked = v1.WatchEventsRequest(
            namespace=task.namespace, types=[f"{_TYPE}*"], after_sequence=begin
        )
        stream = self._upstream.stream(_WATCH_EVENTS, asked, user)
        async with contextlib.aclosing(stream) as answers, _Reading(answers) as reading:
            while True:
                answer = await reading.next(_QUIET_SECONDS)
                if answer is None:
                    yield None
                    continue
                for event in answer.events:
                    if _is_of(event.data_json, task):
                        yield int(event.sequence), event.data_json

    async def _page(
        self, namespace: str, token: str, user: str, name: str
    ) -> v1.ListEventsResponse:
        asked = v1.ListEventsRequest(
            namespace=namespace, name=name, page_size=_PAGE, page_token=token
        )
        answer: v1.ListEventsResponse = await self._upstream.call(_LIST_EVENTS, asked, user)
        return answer


class _Reading:
    """Reads a stream whose next answer may be waited for again."""

    def __init__(self, answers: AsyncIterator[Any]) -> None:
        self._answers = answers
        self._next: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait((self._next,))

    async def next(self, seconds: float) -> Any:
        """Return the next answer; None if none has come by then."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._answers))
        done, _ = await asyncio.wait((self._next,), timeout=seconds)
        if not done:
            return None
        found, self._next = self._next, None
        return found.result()


def _is_of(data: str, task: TaskUpdates) -> bool:
    said = json.loads(data)
    return bool(said.get("userName") == task.user and said.get("taskName") == task.task)
