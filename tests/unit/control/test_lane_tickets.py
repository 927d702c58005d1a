"""Tickets that a controller signs with assignments."""

from dataclasses import replace

from control.front.lane_tickets import LaneTickets
from services.identity.ticket import TicketSigner, read_ticket
from shoal.names import AttemptRef
from shoal.portal_names import CLIENT_ADDRESS
from shoal.session.assignment import Assignment, Goal
from shoal.session.lane import NOWHERE, Lane, LanePeer
from shoal.spec import Job
from shoal.v1 import streams_service_pb2 as v1

SIGNER = TicketSigner(bytes(range(32)))
REF = AttemptRef("lab", "p", "sink", 2, 9)
PEER = LanePeer("10.0.0.7:7947", "pipelines/p/jobs/source/attempts/1", 7)
TAKES = Lane("source.out/sink.in", output=False, port="in", peer=PEER)
SENDS = Lane("sink.out/last.in", output=True, port="out", peer=PEER)
NODES = {
    AttemptRef("lab", "p", "source", 1, 7): "cam-1",
    AttemptRef("lab", "p", "source", 2, 8): "cam-3",
}


def assignment(*lanes: Lane) -> Assignment:
    return Assignment(REF, Job("sink", ("run",)), goal=Goal.RUN, lanes=lanes)


def ticketed(*lanes: Lane) -> tuple[Lane, ...]:
    tickets = LaneTickets(SIGNER, "c1")
    return tickets.ticketed(assignment(*lanes), "cam-2", lambda ref: NODES.get(ref, "")).lanes


def test_a_lane_that_is_dialled_gets_a_ticket_and_one_that_is_served_none() -> None:
    takes, sends = ticketed(TAKES, SENDS)
    assert replace(takes, ticket=b"") == TAKES
    assert sends == SENDS
    assert read_ticket(takes.ticket, [SIGNER.public_key]) == v1.LaneTicket(
        cluster="c1",
        namespace="lab",
        pipeline="p",
        lane="source.out/sink.in",
        kind=v1.LANE_KIND_JOB,
        producer_node="cam-1",
        producer_epoch=7,
        consumer_node="cam-2",
        consumer_epoch=9,
    )


def test_a_producer_that_moves_gets_another_ticket() -> None:
    moved = replace(PEER, attempt="pipelines/p/jobs/source/attempts/2", epoch=8)
    (before,), (after,) = ticketed(TAKES), ticketed(replace(TAKES, peer=moved))
    assert before.ticket != after.ticket
    said = read_ticket(after.ticket, [SIGNER.public_key])
    assert (said.producer_node, said.producer_epoch) == ("cam-3", 8)


def test_no_ticket_is_for_a_producer_that_is_not_placed_or_a_client() -> None:
    for peer in (
        NOWHERE,
        LanePeer(epoch=7),
        LanePeer(CLIENT_ADDRESS),
        replace(PEER, epoch=6),
        replace(PEER, attempt="odd"),
    ):
        one = assignment(replace(TAKES, peer=peer))
        assert LaneTickets(SIGNER, "c1").ticketed(one, "cam-2", lambda r: NODES.get(r, "")) is one


def test_equal_lanes_have_equal_tickets_in_every_snapshot() -> None:
    assert ticketed(TAKES) == ticketed(TAKES)
