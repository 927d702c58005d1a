"""What tasks of the edge-analytics dashboard say, for pages that watch them.

The original kept updates in memory, gave each to one page, and forgot them with its process. Here an update is an event
of the controller's store (`shoal.update.*`), which has a place in the order of all of its namespace.

Rule: every page that watches a task gets all of its updates in their order, each once. A page that comes again says the
id of the last one that it got, and goes on behind it, whichever gateway it reaches and whether or not the controller
was restarted in between. Without an id it gets all that the controller remembers.

Of each namespace with a page one question a tenth of a second goes to the controller: is there anything behind the last
event? Pages then read what is theirs. So what a page costs does not depend on how long nothing happens.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Final

from services.gateway.contract import OFFERED
from services.gateway.upstream import Upstream
from shoal.errors import ShoalError
from shoal.v1 import pipelines_service_pb2 as v1

_LIST_EVENTS: Final = OFFERED["/shoal.v1.PipelinesService/ListEvents"].upstream
_PAGE: Final = 1000
_POLL_SECONDS: Final = 0.1
_AWAY_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 15.0
"""After so long without an update a page gets a line that says nothing, so that no proxy takes it for dead."""
_TYPE: Final = "shoal.update."
_AWAY: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
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


@dataclass(eq=False, slots=True)
class _Tail:
    """The end of the events of a namespace, and the pages that wait there."""

    pages: int = 0
    last: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    asking: "asyncio.Task[None] | None" = None

    def grow(self, last: int) -> None:
        """Wake the pages that wait."""
        self.last = max(self.last, last)
        self.grown.set()
        self.grown = asyncio.Event()


class UpdateFeed:
    """Reads updates for pages; each page asks as its own user, and the tail as the user that came first.

    Args:
        upstream: is asked.
        tasks: where the ends are asked for.
    """

    def __init__(self, upstream: Upstream, tasks: asyncio.TaskGroup) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._tails: dict[str, _Tail] = {}

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
        last = begin
        with contextlib.ExitStack() as stack:
            tail = stack.enter_context(self._held(task.namespace, user))
            while True:
                grown = tail.grown
                try:
                    page = await self._page(task.namespace, str(last), user)
                except ShoalError as error:
                    if error.code not in _AWAY:
                        raise
                    await asyncio.sleep(_AWAY_SECONDS)
                    continue
                for event in page.events:
                    last = int(event.sequence)
                    if event.type.startswith(_TYPE) and _is_of(event.data_json, task):
                        yield last, event.data_json
                if last > tail.last:
                    tail.grow(
                        last
                    )  # other pages have not read this, and the tail asks behind it from now on
                if page.next_page_token:
                    continue
                try:
                    async with asyncio.timeout(_QUIET_SECONDS):
                        await grown.wait()
                except TimeoutError:
                    yield None

    @contextlib.contextmanager
    def _held(self, namespace: str, user: str) -> Iterator[_Tail]:
        tail = self._tails.setdefault(namespace, _Tail())
        tail.pages += 1
        if tail.asking is None:
            tail.asking = self._tasks.create_task(self._ask_on(namespace, tail, user))
        try:
            yield tail
        finally:
            tail.pages -= 1
            if not tail.pages:
                tail.asking.cancel()
                del self._tails[namespace]

    async def _ask_on(self, namespace: str, tail: _Tail, user: str) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                page = await self._page(namespace, str(tail.last), user)
            except ShoalError:
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            if page.events:
                tail.grow(int(page.events[-1].sequence))

    async def _page(
        self, namespace: str, token: str, user: str, name: str = ""
    ) -> v1.ListEventsResponse:
        asked = v1.ListEventsRequest(
            namespace=namespace, name=name, page_size=_PAGE, page_token=token
        )
        answer: v1.ListEventsResponse = await self._upstream.call(_LIST_EVENTS, asked, user)
        return answer


def _is_of(data: str, task: TaskUpdates) -> bool:
    said = json.loads(data)
    return bool(said.get("userName") == task.user and said.get("taskName") == task.task)
