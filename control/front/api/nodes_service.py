"""Nodes and members over gRPC."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from control.front.access.checked_call import bound_to, note_of
from control.front.api.memory_page import page_of
from control.front.api.node_picture import node_picture
from control.front.control_plane import ControlPlane
from control.front.members import GossipMembers
from control.front.page_token import PageTokens
from control.front.read_model import PAGE_SIZE
from control.front.rpc_status import invalid
from shoal.limits import MOVE_SECONDS_MAX
from shoal.names import check_id
from shoal.text_pattern import text_fits
from shoal.v1 import nodes_service_pb2 as v1
from shoal.v1 import nodes_service_pb2_grpc as v1_grpc
from shoal.view import SnapshotEnd
from shoal.wire.node_filter import decode_node_filter
from shoal.wire.pipeline_filter import checked_pattern
from shoal.wire.state import MEMBER_STATE
from shoal.wire.view import encode_member, encode_node

Context = grpc.aio.ServicerContext[Any, Any]


class NodesService(v1_grpc.NodesServiceServicer):
    """Answers people and dashboards.

    Args:
        plane: records nodes.
        members: the members of the cluster.
    """

    def __init__(self, plane: ControlPlane, members: GossipMembers) -> None:
        self._plane = plane
        self._members = members

    async def ListNodes(
        self, request: v1.ListNodesRequest, context: Context
    ) -> v1.ListNodesResponse:
        """List nodes by name."""
        wanted = decode_node_filter(request.filter)
        if request.order not in v1.NodeOrder.values():
            raise invalid("INVALID_FIELD", f"order is {request.order}; use 0 to 2", field="order")
        page, token = page_of(
            filter(wanted.matches, self._plane.shown.nodes()),
            lambda node: node.name,
            request,
            PageTokens("ListNodes", request),
            backwards=request.order == v1.NODE_ORDER_NAME_BACKWARDS,
            size_unset=PAGE_SIZE,
        )
        return v1.ListNodesResponse(
            nodes=[node_picture(self._plane, bound_to(context), node) for node in page],
            next_page_token=token,
        )

    async def GetNode(self, request: v1.GetNodeRequest, context: Context) -> v1.GetNodeResponse:
        """Return one node, with its facts: those that its agent told last, or tells now."""
        known = self._plane.shown.node(check_id("node", request.name))
        facts = self._plane.facts
        node = await facts.fresh(known) if request.fresh_facts else facts.on(known)
        return v1.GetNodeResponse(node=encode_node(self._plane.within(bound_to(context), node)))

    async def DrainNode(
        self, request: v1.DrainNodeRequest, context: Context
    ) -> v1.DrainNodeResponse:
        """Stop placing on a node, or take it back; what runs there goes on, or is moved after a while."""
        name = check_id("node", request.name)
        seconds = request.move_seconds if request.HasField("move_seconds") else None
        if seconds is not None and not 0 <= seconds <= MOVE_SECONDS_MAX:
            raise invalid(
                "MOVE_SECONDS",
                f"move_seconds is {seconds:g}; it has to be from 0 to {MOVE_SECONDS_MAX:g} (30 days)",
                field="move_seconds",
            )
        node = await self._plane.drain(
            name, drained=request.drained, move_seconds=seconds, note=note_of(context)
        )
        return v1.DrainNodeResponse(node=encode_node(node))

    async def AdoptNode(
        self, request: v1.AdoptNodeRequest, context: Context
    ) -> v1.AdoptNodeResponse:
        """Let a quarantined node give up what it has and follow this controller."""
        node = await self._plane.adopt(check_id("node", request.name), note_of(context))
        return v1.AdoptNodeResponse(node=encode_node(node))

    async def ForgetNode(
        self, request: v1.ForgetNodeRequest, context: Context
    ) -> v1.ForgetNodeResponse:
        """Forget a node that is gone, and have gossip forget it."""
        member = await self._plane.forget_node(check_id("node", request.name), note_of(context))
        self._members.forget(member)
        return v1.ForgetNodeResponse()

    async def WatchNodes(
        self, request: v1.WatchNodesRequest, context: Context
    ) -> AsyncIterator[v1.WatchNodesResponse]:
        """Show nodes as they are, a mark, and then what changes."""
        bound = bound_to(context)
        facts = self._plane.facts
        with self._plane.watch_nodes(request.since_revision, facts=request.facts) as changes:
            async for change in changes:
                yield (
                    v1.WatchNodesResponse(
                        snapshot_end=v1.NodesSnapshotEnd(), revision=change.revision
                    )
                    if isinstance(change, SnapshotEnd)
                    else v1.WatchNodesResponse(
                        node=node_picture(
                            self._plane, bound, facts.on(change) if request.facts else change
                        ),
                        revision=changes.resume,
                    )
                )

    async def ListMembers(
        self, request: v1.ListMembersRequest, context: Context
    ) -> v1.ListMembersResponse:
        """List the members of the gossip cluster."""
        name = checked_pattern(request.name, "name")
        states = {
            MEMBER_STATE.decode(value, f"states[{index}]")
            for index, value in enumerate(request.states)
        }
        page, token = page_of(
            [
                member
                for member in self._members.members(everyone=request.all or bool(states))
                if text_fits(name, member.name) and (not states or member.state in states)
            ],
            lambda member: member.name,
            request,
            PageTokens("ListMembers", request),
        )
        return v1.ListMembersResponse(members=map(encode_member, page), next_page_token=token)

    async def WatchMembers(
        self, request: v1.WatchMembersRequest, context: Context
    ) -> AsyncIterator[v1.WatchMembersResponse]:
        """Show members as they are, a mark, and then what changes."""
        with self._members.watch(request.since_revision) as changes:
            async for change in changes:
                yield (
                    v1.WatchMembersResponse(
                        snapshot_end=v1.MembersSnapshotEnd(), revision=change.revision
                    )
                    if isinstance(change, SnapshotEnd)
                    else v1.WatchMembersResponse(
                        member=encode_member(change.view), revision=changes.resume
                    )
                )
