"""The addresses that pages of the edge-analytics dashboard ask, in the JSON that they know.

- `GET /members` and `/info`, as its cluster program served them: the members of gossip, and the controller itself.
- `GET /active` and `/node?name=N`, which it asked by a queue: the nodes that are there, and the details of one.
- `GET /updates?userName=U&taskName=T`: what a task says, as server-sent events (`update_feed.py`).

The original needed no sign-in. Here each is asked as the method of the contract that it stands for, so the caller may
be what that takes; `--anonymous viewer` lets pages in as they are.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from services.gateway.contract import OFFERED, OfferedMethod
from services.gateway.door import Door
from services.gateway.sign_in import address_of, told
from services.gateway.update_feed import TaskUpdates, UpdateFeed
from services.gateway.upstream import Upstream
from services.gateway.user_file import GatewayUser
from services.runtime.dashboard_nodes import active_answer, info_answer
from shoal.errors import ShoalError
from shoal.names import DEFAULT_NAMESPACE
from shoal.v1 import nodes_service_pb2 as nodes
from shoal.v1 import pipelines_service_pb2 as pipelines
from shoal.wire.view import decode_member, decode_node

_LIST_MEMBERS: Final = OFFERED["/shoal.v1.NodesService/ListMembers"]
_LIST_NODES: Final = OFFERED["/shoal.v1.NodesService/ListNodes"]
_GET_NODE: Final = OFFERED["/shoal.v1.NodesService/GetNode"]
_LIST_EVENTS: Final = OFFERED["/shoal.v1.PipelinesService/ListEvents"]
_PAGE: Final = 1000
_YES: Final = {"", "1", "true", "yes"}
_STATES: Final[Mapping[str, int]] = {
    "Active": nodes.MEMBER_STATE_ALIVE,
    "Suspect": nodes.MEMBER_STATE_SUSPECT,
    "Dead": nodes.MEMBER_STATE_DEAD,
    "Left": nodes.MEMBER_STATE_LEFT,
}


class OriginalPages:
    """Serves those addresses.

    Args:
        door: lets callers in.
        upstream: is asked.
        updates: what tasks say.
        wall: seconds since 1970.
    """

    def __init__(
        self, door: Door, upstream: Upstream, updates: UpdateFeed, wall: Callable[[], float]
    ) -> None:
        self._door = door
        self._upstream = upstream
        self._updates = updates
        self._wall = wall

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route("/members", told(self._members)),
            Route("/info", told(self._info)),
            Route("/active", told(self._active)),
            Route("/node", told(self._node)),
            Route("/updates", told(self._tell_updates)),
        ]

    async def _members(self, request: Request) -> Response:
        every = request.query_params.get("all")
        everything = every is not None and every.lower() in _YES
        user = self._user(request)
        found = await self._ask(user, _LIST_MEMBERS, nodes.ListMembersRequest(all=everything))
        if not everything:
            # The original knew no suspicion: a member that is not given up yet is active.
            return JSONResponse({"Active": [_place(member) for member in found.members]})
        now = self._wall()
        return JSONResponse(
            {
                title: [
                    {
                        **_place(member),
                        "Incarnation": member.incarnation,
                        "SinceSeconds": round(max(0.0, now - _seconds(member.state_time)), 3),
                    }
                    for member in found.members
                    if member.state == state
                ]
                for title, state in _STATES.items()
            }
        )

    async def _info(self, request: Request) -> Response:
        user = self._user(request)
        found = await self._ask(user, _LIST_MEMBERS, nodes.ListMembersRequest())
        for member in found.members:
            if member.tags.get("role") == "controller":
                return JSONResponse(_place(member))
        raise ShoalError("NO_GOSSIP", "the controller takes no part in gossip", code="NOT_FOUND")

    async def _active(self, request: Request) -> Response:
        user = self._user(request)
        listed: list[Any] = []
        token = ""
        while True:
            asked = nodes.ListNodesRequest(page_size=_PAGE, page_token=token)
            page = await self._ask(user, _LIST_NODES, asked)
            listed += page.nodes
            token = page.next_page_token
            if not token:
                break
        known = await self._known(user)
        return JSONResponse(active_answer(tuple(decode_node(node) for node in listed), known))

    async def _node(self, request: Request) -> Response:
        user = self._user(request)
        name = request.query_params.get("name") or request.query_params.get("node") or ""
        asked = nodes.GetNodeRequest(name=name, fresh_facts=True)
        found = await self._ask(user, _GET_NODE, asked)
        known = await self._known(user)
        return JSONResponse(info_answer(decode_node(found.node), known.get(found.node.name)))

    async def _tell_updates(self, request: Request) -> Response:
        user = self._user(request)
        query = request.query_params
        namespace = query.get("namespace") or user.namespace or DEFAULT_NAMESPACE
        task = TaskUpdates(
            namespace,
            query.get("userName", ""),
            query.get("taskName", ""),
            request.headers.get("last-event-id") or query.get("since") or "",
        )
        asked = pipelines.ListEventsRequest(namespace=namespace)
        self._door.check(user, _LIST_EVENTS.rule, _LIST_EVENTS.path, asked)
        watch = self._door.take_watch(user, request.headers)
        try:
            begin = await self._updates.begin(task, user.name)
        except BaseException:
            self._door.watches.give(watch)
            raise
        events = _as_events(self._updates.follow(task, begin, user.name))
        return _Watch(events, lambda: self._door.watches.give(watch))

    def _user(self, request: Request) -> GatewayUser:
        place = address_of(request)
        return self._door.caller(request.headers, request.method, place, request.url.path)

    async def _ask(self, user: GatewayUser, method: OfferedMethod, request: Any) -> Any:
        self._door.check(user, method.rule, method.path, request)
        return await self._upstream.call(method.upstream, request, user.name)

    async def _known(self, user: GatewayUser) -> Mapping[str, Any]:
        found = await self._ask(user, _LIST_MEMBERS, nodes.ListMembersRequest(all=True))
        return {member.name: decode_member(member) for member in found.members}


class _Watch(StreamingResponse):
    """A stream of events that gives back its room, however it ends."""

    def __init__(self, events: AsyncIterator[bytes], done: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events
        self._done = done

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()
            close = getattr(self._events, "aclose", None)
            if close is not None:
                await close()


async def _as_events(updates: AsyncIterator[tuple[int, str] | None]) -> AsyncIterator[bytes]:
    """Write updates as server-sent events; one that is none is a line that keeps the connection."""
    yield b"retry: 1000\n\n"
    try:
        async for update in updates:
            if update is None:
                yield b": \n\n"
            else:
                yield f"id: {update[0]}\ndata: {update[1]}\n\n".encode()
    except ShoalError as error:
        said = json.dumps({"code": error.code.lower(), "message": error.message})
        yield f"event: refused\ndata: {said}\n\n".encode()


def _place(member: Any) -> dict[str, str | int]:
    return {"Name": member.name, "IP": member.address, "Port": member.port}


def _seconds(moment: Any) -> float:
    return float(moment.seconds + moment.nanos / 1e9)
