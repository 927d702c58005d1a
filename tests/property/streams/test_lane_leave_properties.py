"""A ticket is good for one call by one caller: whatever is changed of it, the call or the caller, it is refused."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.identity.ticket import TicketError, TicketSigner
from services.runtime.peer import Peer
from services.streams.lane_leave import LaneLeave, LaneWish, tap_lane
from shoal.identity import Identity, Role
from shoal.portal_names import output_lane, recorder_lane
from shoal.session.trust import Trust
from shoal.v1 import streams_service_pb2 as v1

SIGNER = TicketSigner(bytes(range(32)))
OTHER_SIGNER = TicketSigner(bytes(32))
TRUST = Trust(b"", (OTHER_SIGNER.public_key, SIGNER.public_key), ("ff", "odd", "1a2b"))
CAM_1, CAM_2 = (Identity("c1", Role.NODE, name) for name in ("cam-1", "cam-2"))
CONTROLLER = Identity("c1", Role.CONTROLLER, "main")
EPOCHS = st.integers(0, 2**64 - 1)
SAID = v1.LaneTicket(
    cluster="c1",
    namespace="default",
    pipeline="p",
    lane="source.out/sink.in",
    kind=v1.LANE_KIND_JOB,
    producer_node="cam-1",
    producer_epoch=7,
    consumer_node="cam-2",
    consumer_epoch=9,
)
WISH = LaneWish("default", "p", "source.out/sink.in", 7, 9, frozenset({v1.LANE_KIND_JOB}))


def leave(*, proven: bool = True) -> LaneLeave:
    return LaneLeave.by(CAM_1, TRUST, lambda pem: pem != b"removed", proven=proven)


def changed(said: v1.LaneTicket, **fields: Any) -> v1.LaneTicket:
    other = v1.LaneTicket()
    other.CopyFrom(said)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def refused(
    said: v1.LaneTicket,
    words: str,
    *,
    wish: LaneWish = WISH,
    caller: Peer | None = Peer(CAM_2, 5),  # noqa: B008 - frozen
    proven: bool = True,
) -> None:
    with pytest.raises(TicketError, match=re.escape(words)):
        leave(proven=proven).check(SIGNER.sign(said), wish, caller)


def test_the_ticket_of_a_job_is_good_for_its_lane_and_node() -> None:
    assert leave().check(SIGNER.sign(SAID), WISH, Peer(CAM_2, 5)) == SAID


@given(st.data())
def test_a_changed_field_is_refused_and_named(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(tuple(SAID.DESCRIPTOR.fields)))
    own = getattr(SAID, field.name)
    kinds = st.sampled_from(tuple(v1.LaneKind.values()))
    values: Any = st.text(max_size=80) if isinstance(own, str) else EPOCHS
    value = data.draw(kinds if field.enum_type else values)
    assume(value != own)
    words = {
        "producer_node": "the ticket is for node ",
        "consumer_node": "the ticket is for node/",
        "kind": "the ticket is for ",
    }.get(field.name, f"the ticket is for {field.name.replace('_', ' ')} {value!r}, and not for")
    refused(changed(SAID, **{field.name: value}), words)


@given(
    st.sampled_from(["namespace", "pipeline", "lane"]),
    st.text(max_size=80),
    st.sampled_from(["producer_epoch", "consumer_epoch"]),
    EPOCHS,
)
def test_a_call_for_something_else_is_refused(
    name: str, value: str, epoch_name: str, epoch: int
) -> None:
    for field, other in ((name, value), (epoch_name, epoch)):
        if getattr(WISH, field) != other:
            wish = replace(WISH, **{field: other})  # type: ignore[arg-type]
            refused(SAID, f"the ticket is for {field.replace('_', ' ')}", wish=wish)


@given(st.integers(0, len(SIGNER.sign(SAID)) * 8 - 1))
def test_a_flipped_bit_is_refused(bit: int) -> None:
    ticket = bytearray(SIGNER.sign(SAID))
    ticket[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TicketError):
        leave().check(bytes(ticket), WISH, Peer(CAM_2, 5))


@given(st.binary(max_size=300))
def test_what_no_controller_signed_is_refused(ticket: bytes) -> None:
    for proven in (True, False):
        with pytest.raises(TicketError):
            leave(proven=proven).check(ticket, WISH, Peer(CAM_2, 5))


def test_a_ticket_signed_by_an_unknown_key_is_refused_and_by_any_known_one_taken() -> None:
    stranger = TicketSigner(bytes([1]) * 32)
    with pytest.raises(TicketError, match="not signed by a controller of this cluster"):
        leave().check(stranger.sign(SAID), WISH, Peer(CAM_2, 5))
    leave().check(OTHER_SIGNER.sign(SAID), WISH, Peer(CAM_2, 5))


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        (None, "names no identity"),
        (Peer(Identity("c2", Role.NODE, "cam-2"), 5), "of cluster c2, and not of c1"),
        (Peer(Identity("c1", Role.NODE, "cam-3"), 5), "is for node/cam-2, and node/cam-3 shows it"),
        (Peer(CONTROLLER, 5), "is for node/cam-2, and controller/main shows it"),
        (Peer(Identity("c1", Role.OPERATOR, "cam-2"), 5), "and operator/cam-2 shows it"),
        (Peer(CAM_2, 0xFF), "the certificate of node/cam-2 was revoked"),
        (Peer(CAM_2, 0x1A2B), "the certificate of node/cam-2 was revoked"),
        (Peer(CAM_2, 5, b"removed"), "the authority of node/cam-2 is believed no more"),
    ],
)
def test_another_caller_than_the_ticket_names_is_refused(caller: Peer | None, words: str) -> None:
    refused(SAID, words, caller=caller)


def test_without_mutual_tls_the_ticket_alone_counts() -> None:
    assert leave(proven=False).check(SIGNER.sign(SAID), WISH, None) == SAID
    refused(changed(SAID, consumer_epoch=10), "consumer epoch 10", caller=None, proven=False)


CLIENTS = {
    v1.LANE_KIND_CLIENT: LaneWish.of_pull(
        v1.PullOpen(namespace="n", pipeline="p", lane=output_lane("a", "x"), producer_epoch=3)
    ),
    v1.LANE_KIND_RECORDER: LaneWish.of_pull(
        v1.PullOpen(namespace="n", pipeline="p", lane=recorder_lane("a", "x", 4), producer_epoch=3)
    ),
    v1.LANE_KIND_TAP: LaneWish.of_tap(
        v1.TapRequest(namespace="n", pipeline="p", job="a", port="x", epoch=3)
    ),
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_reaches_a_worker_through_a_controller_alone(kind: v1.LaneKind.ValueType) -> None:
    wish = CLIENTS[kind]
    said = v1.LaneTicket(
        cluster="c1",
        namespace="n",
        pipeline="p",
        lane=wish.lane,
        kind=kind,
        producer_node="cam-1",
        producer_epoch=3,
    )
    assert leave().check(SIGNER.sign(said), wish, Peer(CONTROLLER, 5)) == said
    refused(said, "the ticket is for a controller, and node/cam-2 shows it", wish=wish)
    for other in set(CLIENTS) - {kind}:
        refused(
            changed(said, kind=other), "the ticket is for", wish=wish, caller=Peer(CONTROLLER, 5)
        )


def test_a_client_that_feeds_has_a_ticket_for_the_consumer_here() -> None:
    opened = v1.FeedOpen(
        namespace="n", pipeline="p", lane="client.x/a.client-x", consumer_epoch=3, producer_epoch=8
    )
    said = v1.LaneTicket(
        cluster="c1",
        namespace="n",
        pipeline="p",
        lane=opened.lane,
        kind=v1.LANE_KIND_CLIENT,
        producer_epoch=8,
        consumer_node="cam-1",
        consumer_epoch=3,
    )
    wish = LaneWish.of_feed(opened)
    assert leave().check(SIGNER.sign(said), wish, Peer(CONTROLLER, 5)) == said
    elsewhere = changed(said, consumer_node="cam-9", producer_node="cam-1")
    refused(elsewhere, "for node 'cam-9'", wish=wish, caller=Peer(CONTROLLER, 5))


def test_the_lane_of_a_tap_is_a_port() -> None:
    assert tap_lane("detector-0", "boxes") == "detector-0.boxes"
