"""Tickets of lanes, which the controller signs with the assignment that carries them.

Rule: a lane that the job of an assignment dials gets a ticket for its producer as it stands, from the
node and epoch of one end to those of the other; a producer that is not placed, or is a client, gets
none. An end that moves gets a new epoch, so each ticket is for one placement of both ends.
Why not for outputs: the consumer dials, and the ticket is shown by the end that dials.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from services.identity.ticket import TicketSigner
from shoal.names import AttemptRef, InvalidNameError, parse_attempt
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane
from shoal.v1.streams_service_pb2 import LANE_KIND_JOB, LaneTicket

NodeOf = Callable[[AttemptRef], str]
"""Name of the node where an attempt is placed; empty where it is not the current one of its job."""

SIGNED_MAX = 16_384
"""So many tickets are remembered: one that was signed is not signed again for the next snapshot."""


class LaneTickets:
    """Puts tickets into assignments.

    Args:
        signer: signs them.
        cluster: id of the cluster.
    """

    def __init__(self, signer: TicketSigner, cluster: str) -> None:
        self._signer = signer
        self._cluster = cluster
        self._signed = lru_cache(SIGNED_MAX)(self._sign)

    def ticketed(self, assignment: Assignment, node: str, node_of: NodeOf) -> Assignment:
        """Return an assignment for a node with the tickets of its lanes; equal ones get equal tickets."""
        lanes = tuple(
            self._with_ticket(assignment, lane, node, node_of) for lane in assignment.lanes
        )
        return assignment if lanes == assignment.lanes else replace(assignment, lanes=lanes)

    def _with_ticket(self, assignment: Assignment, lane: Lane, node: str, node_of: NodeOf) -> Lane:
        if lane.output or not lane.peer.attempt:
            return lane
        ref = assignment.ref
        try:
            producer = parse_attempt(lane.peer.attempt, ref.namespace, lane.peer.epoch)
        except InvalidNameError:
            return lane
        placed = node_of(producer)
        if not placed:
            return lane
        ticket = self._signed(
            ref.namespace, ref.pipeline, lane.id, placed, producer.epoch, node, ref.epoch
        )
        return replace(lane, ticket=ticket)

    def _sign(
        self,
        namespace: str,
        pipeline: str,
        lane: str,
        producer_node: str,
        producer_epoch: int,
        consumer_node: str,
        consumer_epoch: int,
    ) -> bytes:
        return self._signer.sign(
            LaneTicket(
                cluster=self._cluster,
                namespace=namespace,
                pipeline=pipeline,
                lane=lane,
                kind=LANE_KIND_JOB,
                producer_node=producer_node,
                producer_epoch=producer_epoch,
                consumer_node=consumer_node,
                consumer_epoch=consumer_epoch,
            )
        )
