"""Several watches as one, for pages of dashboards.

Theory. A reader of several watches has as many places to go on from. Here they travel together as one token, after each
message, so whatever of the message a reader has seen, the token is that of all of it.

Rule: news of a part is told in its order, and the place of a part is never ahead of what was written. While the reader
takes nothing, one message is being written, and each part waits with one of its own; the rest is what waits for a
watch.

Example: the token says "pipelines up to revision 7, events up to 12". After a kill of the controller revisions begin
anew, which the token shows by the start that they are of: pipelines begin with a snapshot, events go on with 13.
"""
# ruff: noqa: N802 - names and arguments are the contract's

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc.aio

from control.core.errors import ResumeTokenError
from control.core.event_query import EventQuery
from control.front.access.checked_call import bound_to
from control.front.api.light_picture import unlisted_given
from control.front.api.node_picture import node_picture
from control.front.api.overview_news import (
    News,
    Part,
    PartNews,
    WatchedThings,
    count_news,
    event_news,
)
from control.front.api.pipeline_listing import filter_of, is_light
from control.front.api.request import event_query, namespace_of, pipeline_of
from control.front.api.shared_pictures import SharedPictures
from control.front.api.watch_pace import WatchPace
from control.front.control_plane import ControlPlane
from control.front.event_feed import EventsBegin
from control.front.members import GossipMembers, MemberShown
from control.front.page_token import PageTokens
from control.front.read_model import PipelineShown
from control.front.rpc_status import invalid
from shoal import limits
from shoal.pipeline_filter import PipelineFilter
from shoal.v1 import overview_service_pb2 as v1
from shoal.v1 import overview_service_pb2_grpc as v1_grpc
from shoal.view import NodeView, Unlisted
from shoal.wire.fields import moment
from shoal.wire.view import encode_member

Context = grpc.aio.ServicerContext[Any, Any]

LAST_EVENTS_MAX: Final = 1000
_TOGETHER: Final = 256
_PLACES: Final = (
    v1.OVERVIEW_PART_PIPELINES,
    v1.OVERVIEW_PART_NODES,
    v1.OVERVIEW_PART_MEMBERS,
    v1.OVERVIEW_PART_EVENTS,
)
"""The parts whose places a token has, in its order."""


class OverviewService(v1_grpc.OverviewServiceServicer):
    """Answers dashboards.

    Args:
        plane: shows pipelines, nodes and events.
        members: the members of the cluster.
        pictures: pictures of pipelines.
        light_pictures: light ones.
    """

    def __init__(
        self,
        plane: ControlPlane,
        members: GossipMembers,
        pictures: SharedPictures,
        light_pictures: SharedPictures,
    ) -> None:
        self._plane = plane
        self._members = members
        self._pictures = pictures
        self._light_pictures = light_pictures

    # gRPC takes a coroutine that writes as well as a generator; the stubs know the generator only.
    async def WatchOverview(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: v1.WatchOverviewRequest, context: Context
    ) -> None:
        """Tell of all parts that are asked for, until the caller leaves."""
        tokens = PageTokens(
            f"WatchOverview of {self._plane.cluster_id()}",
            request,
            "resume_token",
            ResumeTokenError,
        )
        start = self._plane.start_id()
        places = dict.fromkeys(_PLACES, 0)
        resumed = tokens.read(str, 1 + len(_PLACES))
        if resumed is not None:
            places = _places_in(resumed, start)
        parts = await self._parts(request, context, places)
        if not parts:
            raise invalid(
                "NOTHING_WATCHED",
                "no part is asked for; set pipelines, nodes, members, events or counts",
            )
        news: asyncio.Queue[PartNews] = asyncio.Queue(len(parts))
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(_tell(part, news))
            pace = WatchPace(asyncio.get_running_loop().time())
            waiting: PartNews | None = None
            beginning: set[Part] = set()
            if request.HasField("events"):
                beginning.add(v1.OVERVIEW_PART_EVENTS)
            while True:
                first = waiting or await news.get()
                response, items, waiting = _together(first, news, places)
                response.resume_token = tokens.write([start, *map(str, places.values())])
                await context.write(response)
                beginning = (beginning | {*response.begun}) - {*response.complete}
                if not beginning:  # what is there is shown once, as fast as it goes
                    now = asyncio.get_running_loop().time()
                    await asyncio.sleep(pace.rest_seconds(now, items, 0, more=False))

    async def _parts(
        self, request: v1.WatchOverviewRequest, context: Context, places: dict[Part, int]
    ) -> Sequence[News]:
        namespace, bound = namespace_of(request.namespace), bound_to(context)
        parts: list[News] = []
        if request.HasField("pipelines"):
            pipelines = await self._pipelines(namespace, request.pipelines)
            parts.append(pipelines.news(places[v1.OVERVIEW_PART_PIPELINES]))
        if request.HasField("nodes"):
            nodes = self._nodes(bound, facts=request.nodes.facts)
            parts.append(nodes.news(places[v1.OVERVIEW_PART_NODES]))
        if request.HasField("members"):
            members = WatchedThings(
                v1.OVERVIEW_PART_MEMBERS,
                partial(self._members.watch, at_once=_TOGETHER),
                _add_member,
            )
            parts.append(members.news(places[v1.OVERVIEW_PART_MEMBERS]))
        if request.HasField("events"):
            wanted = request.events
            query = event_query(wanted.name, request.namespace, wanted.types, bound=bound)
            after = places[v1.OVERVIEW_PART_EVENTS] or wanted.after_sequence
            begin = await self._events_begin(query, wanted, after)
            places[v1.OVERVIEW_PART_EVENTS] = begin.place
            parts.append(event_news(self._plane, query, begin))
        if request.HasField("counts"):
            asked = filter_of(request.counts)
            self._check_node(asked)
            parts.append(count_news(self._plane, namespace, asked))
        return parts

    async def _pipelines(self, namespace: str, wanted: v1.OverviewPipelines) -> WatchedThings:
        asked, light = filter_of(wanted), is_light(wanted.view)
        self._check_node(asked)
        pipeline = ""
        if wanted.name:
            ref = pipeline_of(wanted.name, namespace)
            await self._plane.shown.find(ref)  # an unknown one would never change
            pipeline = ref.pipeline
        pictures = self._light_pictures if light else self._pictures

        def add(response: v1.WatchOverviewResponse, view: PipelineShown) -> int:
            if isinstance(view, Unlisted) or not asked.stands(view):
                return response.pipelines.add(**unlisted_given(view)).ByteSize()
            return pictures.add(response, view)

        def watch(since: int) -> Any:
            return self._plane.watch_pipelines(
                namespace,
                pipeline,
                since,
                at_once=_TOGETHER,
                asked=asked,
                light=light,
                forgotten=True,
            )

        return WatchedThings(v1.OVERVIEW_PART_PIPELINES, watch, add)

    def _nodes(self, bound: str, *, facts: bool) -> WatchedThings:
        known = self._plane.facts

        def add(response: v1.WatchOverviewResponse, view: NodeView) -> int:
            node = node_picture(self._plane, bound, known.on(view) if facts else view)
            response.nodes.append(node)
            return node.ByteSize()

        def watch(since: int) -> Any:
            return self._plane.watch_nodes(since, facts=facts, at_once=_TOGETHER)

        return WatchedThings(v1.OVERVIEW_PART_NODES, watch, add)

    async def _events_begin(
        self, query: EventQuery, wanted: v1.OverviewEvents, after: int
    ) -> EventsBegin:
        since = moment(wanted, "since_time", "events")
        if after or since is not None or not wanted.last:
            return await self._plane.watch_events(query, after, since)
        if wanted.last > LAST_EVENTS_MAX:
            raise invalid(
                "INVALID_FIELD",
                f"events.last is {wanted.last}; ask for at most {LAST_EVENTS_MAX}, or begin at a time",
                field="events.last",
            )
        begin = await self._plane.watch_events(query)
        page = await self._plane.events(query, wanted.last, newest_first=True)
        if not page.next_page_token or not page.items:
            return begin
        return begin._replace(place=page.items[-1].sequence - 1)

    def _check_node(self, asked: PipelineFilter) -> None:
        if asked.node:
            self._plane.shown.node(asked.node)  # an unknown one would never have an attempt


def _places_in(resumed: Sequence[str], start: str) -> dict[Part, int]:
    """Read the places in a token: revisions of another start mean nothing, sequences of events stay."""
    try:
        numbers = [int(text) for text in resumed[1:]]
    except ValueError:
        numbers = [-1]
    if not all(0 <= number <= limits.INTEGER_MAX for number in numbers):
        raise ResumeTokenError(
            "the resume token was changed on its way: use the one of the last answer, unchanged"
        )
    places = dict(zip(_PLACES, numbers, strict=True))
    if resumed[0] != start:
        for part in _PLACES:
            if part != v1.OVERVIEW_PART_EVENTS:
                places[part] = 0
    return places


async def _tell(part: News, news: asyncio.Queue[PartNews]) -> None:
    async with aclosing(part) as told:
        async for one in told:
            await news.put(one)


def _together(
    first: PartNews, news: asyncio.Queue[PartNews], places: dict[Part, int]
) -> tuple[v1.WatchOverviewResponse, int, PartNews | None]:
    """Put into one message what waits, up to what has to begin a message of its own, and move the places on."""
    response, items = v1.WatchOverviewResponse(), 0
    one = first
    while True:
        if one.response.HasField("counts"):
            response.ClearField("counts")
        response.MergeFrom(one.response)
        items += one.items
        if one.part in places:
            places[one.part] = one.place
        if news.empty() or response.ByteSize() >= limits.BATCH_BYTES_MAX:
            break
        one = news.get_nowait()
        if (
            one.response.begun
        ):  # or what was told of the part before would seem to be of its snapshot
            return response, items, one
    return response, items, None


def _add_member(response: v1.WatchOverviewResponse, shown: MemberShown) -> int:
    member = encode_member(shown.view)
    response.members.append(member)
    return member.ByteSize()
