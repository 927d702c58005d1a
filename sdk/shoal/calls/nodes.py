"""Requests about nodes, and about members of the gossip and their keys."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

from shoal import view
from shoal.calls.calls import PAGE_SIZE_MAX, ControllerCalls, RequestT
from shoal.calls.gone import with_gone
from shoal.connection import Unary, decoded
from shoal.garbage import GarbageReport
from shoal.history import ClusterHistory
from shoal.model import MemberState
from shoal.node_filter import EVERY_NODE, NodeFilter
from shoal.text_pattern import text_fits
from shoal.v1 import archive_service_pb2, history_service_pb2, keys_service_pb2
from shoal.v1 import nodes_service_pb2 as v1
from shoal.view import SnapshotEnd
from shoal.wire.node_filter import encode_node_filter
from shoal.wire.state import MEMBER_STATE
from shoal.wire.view import decode_keys_report, decode_member, decode_node

_GARBAGE_SECONDS = 3_600.0  # every object of the archive is listed
_KEYS_SECONDS = 120.0  # every member is waited for, and asked again where it is silent


class NodeCalls(ControllerCalls):
    """What can be asked of nodes, members, keys and the archive as a whole."""

    async def nodes(self, where: NodeFilter = EVERY_NODE) -> tuple[view.NodeView, ...]:
        """List nodes by name: all, or those that match.

        Raises:
            ShoalError: they could not be read, or the filter cannot be.
        """
        pages = self._pages(
            self._held.nodes.ListNodes,
            lambda token: v1.ListNodesRequest(
                page_token=token, filter=None if where is EVERY_NODE else encode_node_filter(where)
            ),
        )
        found = [decoded(decode_node, node) async for page in pages for node in page.nodes]
        return tuple(filter(where.matches, found))  # which a controller of before does not look at

    async def node(self, name: str, *, fresh_facts: bool = False) -> view.NodeView:
        """Return one node; with `fresh_facts` its agent is asked for its facts, a second long at most.

        Raises:
            ShoalError: there is none.
        """
        request = v1.GetNodeRequest(name=name, fresh_facts=fresh_facts)
        return await self._node(self._held.nodes.GetNode, request)

    async def _node(self, method: Unary[RequestT, Any], request: RequestT) -> view.NodeView:
        answer = await self._call(method, request)
        return decoded(decode_node, answer.node)

    async def drain(
        self, name: str, *, drained: bool = True, move_seconds: float | None = None
    ) -> view.NodeView:
        """Stop placing on a node, or take it back; after `move_seconds` what runs there is moved.

        Raises:
            ShoalError: there is none.
        """
        request = v1.DrainNodeRequest(name=name, drained=drained, move_seconds=move_seconds)
        return await self._node(self._held.nodes.DrainNode, request)

    async def adopt(self, name: str) -> view.NodeView:
        """Let a quarantined node give up what it has and follow this controller.

        Raises:
            ShoalError: there is none of that name, or it is not quarantined.
        """
        return await self._node(self._held.nodes.AdoptNode, v1.AdoptNodeRequest(name=name))

    async def forget_node(self, name: str) -> None:
        """Forget a node that is gone: its record, and its place in gossip.

        Raises:
            ShoalError: there is none of that name, it is there, or something is still on it.
        """
        await self._call(self._held.nodes.ForgetNode, v1.ForgetNodeRequest(name=name))

    def watch_nodes(
        self, *, facts: bool = False
    ) -> AsyncGenerator[view.NodeView | SnapshotEnd, None]:
        """Show all nodes as they are and then as they change; see `watch`. With `facts`, these too.

        One that was forgotten, be it during a cut, comes with `forgotten`.

        Raises:
            ShoalError: the controller stayed away for too long.
        """
        return with_gone(
            lambda request: self._watch(self._held.nodes.WatchNodes, request, "node", decode_node),
            lambda revision: v1.WatchNodesRequest(since_revision=revision, facts=facts),
            lambda node: replace(node, forgotten=True),
            lambda node: node.forgotten,
        )

    async def members(
        self, *, everyone: bool = False, name: str = "", states: Sequence[MemberState] = ()
    ) -> tuple[view.MemberView, ...]:
        """List the members of the gossip cluster by name; with `everyone`, dead and left ones too.

        `name` is a part of the name, or a pattern of it with `*` or `?`. With `states` those in one of them are listed,
        dead and left ones too.

        Raises:
            ShoalError: they could not be read.
        """
        pages = self._pages(
            self._held.nodes.ListMembers,
            lambda token: v1.ListMembersRequest(
                all=everyone or bool(states),
                page_size=PAGE_SIZE_MAX,
                page_token=token,
                name=name,
                states=[MEMBER_STATE.encode(state) for state in states],
            ),
        )
        found = [decoded(decode_member, one) async for page in pages for one in page.members]
        # A controller of before does not look at names and states.
        return tuple(
            one
            for one in found
            if text_fits(name, one.name) and (not states or one.state in states)
        )

    def watch_members(self) -> AsyncGenerator[view.MemberView | SnapshotEnd, None]:
        """Show all members as they are, dead and left ones too, and then as they change.

        One that was forgotten, be it during a cut, comes with the state UNKNOWN; see `watch`.

        Raises:
            ShoalError: the controller stayed away for too long.
        """
        return with_gone(
            lambda request: self._watch(
                self._held.nodes.WatchMembers, request, "member", decode_member
            ),
            lambda revision: v1.WatchMembersRequest(since_revision=revision),
            lambda member: replace(member, state=MemberState.UNKNOWN),
            lambda member: member.state is MemberState.UNKNOWN,
        )

    # ---- keys of gossip -------------------------------------------------------------------------

    async def gossip_keys(self) -> view.KeysReport:
        """Ask every member for its keys.

        Raises:
            ShoalError: gossip is not encrypted.
        """
        answer = await self._call(
            self._held.keys.ListKeys, keys_service_pb2.ListKeysRequest(), _KEYS_SECONDS
        )
        return decode_keys_report(answer.report, answer.keys)

    async def install_gossip_key(self, key: bytes) -> view.KeysReport:
        """Have every member install a key that opens, but does not seal yet.

        Raises:
            ShoalError: gossip is not encrypted, or the key has a wrong length.
        """
        request = keys_service_pb2.InstallKeyRequest(key=key)
        return await self._rotate(self._held.keys.InstallKey, request)

    async def use_gossip_key(self, identity: str) -> view.KeysReport:
        """Have every member seal with an installed key, named by the digits of its name.

        Raises:
            ShoalError: gossip is not encrypted, or the controller has no such key.
        """
        request = keys_service_pb2.UseKeyRequest(id=identity)
        return await self._rotate(self._held.keys.UseKey, request)

    async def remove_gossip_key(self, identity: str) -> view.KeysReport:
        """Have every member drop a key that none seals with.

        Raises:
            ShoalError: gossip is not encrypted, the key is in use, or there is none.
        """
        request = keys_service_pb2.RemoveKeyRequest(id=identity)
        return await self._rotate(self._held.keys.RemoveKey, request)

    async def collect_garbage(self, *, dry_run: bool) -> GarbageReport:
        """Have the archive rid of what nothing names, or see what that would be.

        Raises:
            ShoalError: the archive does not answer.
        """
        request = archive_service_pb2.CollectGarbageRequest(dry_run=dry_run)
        answer = await self._call(self._held.archive.CollectGarbage, request, _GARBAGE_SECONDS)
        return GarbageReport(answer.objects, answer.size_bytes, answer.uploads, tuple(answer.keys))

    async def history(self) -> ClusterHistory:
        """Return coarse figures of the last week, which the controller keeps by itself.

        Raises:
            ShoalError: the caller is bound to a namespace, or the controller is of before.
        """
        request = history_service_pb2.GetHistoryRequest()
        answer = await self._call(self._held.history.GetHistory, request)
        return ClusterHistory(
            answer.begin_time.ToDatetime(UTC),
            answer.slot_seconds,
            {one.name: tuple(one.values) for one in answer.series},
        )

    async def rotate_gossip_key(self) -> tuple[str, view.KeysReport]:
        """Replace all keys by a new one, which agents get over their sessions and no member by gossip.

        Returns:
            The name of the new key, and which members have it already.

        Raises:
            ShoalError: gossip is not encrypted, or the cluster has no identity.
        """
        request = keys_service_pb2.RotateKeyRequest()
        answer = await self._call(self._held.keys.RotateKey, request, _KEYS_SECONDS)
        return answer.id, decode_keys_report(answer.report)

    async def _rotate(self, method: Unary[RequestT, Any], request: RequestT) -> view.KeysReport:
        answer = await self._call(method, request, _KEYS_SECONDS)
        return decode_keys_report(answer.report)
