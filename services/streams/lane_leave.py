"""Whether a caller may have a lane: what its ticket says is held against the call, before anything else.

Rule. A worker answers only if a controller of its cluster has signed the ticket; if the ticket is for
exactly what is asked, at exactly the epochs that the caller names; if it is for this node; and if the
caller is the one that the ticket is for: the node of the consumer for a job's lane, a controller for
all others, since clients reach workers through a controller alone. A caller whose certificate was
revoked has none of it.
Why first: the machine of a lane takes the highest epoch that a consumer names for the true one. If a
stranger's epoch got there before its ticket was read, the consumer would be locked out for ever.
Why equal epochs: a ticket is fenced by its epochs, not by time. What is not current is refused where the
lanes are, by the epochs that they know.
Example: cam-2 shows a ticket for `source.out/sink.in` from cam-1 at epoch 7 to cam-2 at epoch 9. The
worker of cam-1 takes it from cam-2, for that lane and 7 and 9; from cam-3 it takes it for nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

from services.identity.ticket import TicketError, read_ticket
from services.runtime.peer import Peer
from shoal.identity import Identity, Role
from shoal.portal_names import is_recorder
from shoal.session.trust import Trust
from shoal.v1 import streams_service_pb2 as v1

_KINDS: Final = {
    v1.LANE_KIND_JOB: "a job",
    v1.LANE_KIND_CLIENT: "a client",
    v1.LANE_KIND_RECORDER: "a recorder",
    v1.LANE_KIND_TAP: "a tap",
}


@dataclass(frozen=True, slots=True)
class LaneWish:
    """What a call asks for, in its own words.

    Attributes:
        kinds: what may be at the end that dials.
        here_consumes: whether the consumer is here, and the producer dials.
    """

    namespace: str
    pipeline: str
    lane: str
    producer_epoch: int
    consumer_epoch: int
    kinds: frozenset[int]
    here_consumes: bool = False

    @classmethod
    def of_pull(cls, opened: v1.PullOpen) -> Self:
        """Return what a consumer that dials asks for."""
        recorder = is_recorder(opened.lane)
        kinds = {v1.LANE_KIND_RECORDER} if recorder else {v1.LANE_KIND_JOB, v1.LANE_KIND_CLIENT}
        return cls(
            opened.namespace,
            opened.pipeline,
            opened.lane,
            opened.producer_epoch,
            opened.consumer_epoch,
            frozenset(kinds),
        )

    @classmethod
    def of_feed(cls, opened: v1.FeedOpen) -> Self:
        """Return what a producer that dials asks for."""
        return cls(
            opened.namespace,
            opened.pipeline,
            opened.lane,
            opened.producer_epoch,
            opened.consumer_epoch,
            frozenset({v1.LANE_KIND_CLIENT}),
            here_consumes=True,
        )

    @classmethod
    def of_tap(cls, request: v1.TapRequest) -> Self:
        """Return what one that looks at a port asks for."""
        lane = tap_lane(request.job, request.port)
        kinds = frozenset({v1.LANE_KIND_TAP})
        return cls(request.namespace, request.pipeline, lane, request.epoch, 0, kinds)


def tap_lane(job: str, port: str) -> str:
    """Return what stands for a lane in the ticket of a tap."""
    return f"{job}.{port}"


@dataclass(frozen=True, slots=True)
class LaneLeave:
    """Decides for one worker, by what it trusts at the moment.

    Args:
        own: the identity of its node.
        ticket_keys: public keys of the controllers that sign tickets.
        revoked: serial numbers of certificates that are trusted no more.
        signed: says whether an authority that is trusted now has signed a certificate (PEM); that of a
            connection may be older than the trust.
        proven: whether TLS proves the caller; else the ticket alone counts.
    """

    own: Identity
    ticket_keys: tuple[bytes, ...]
    revoked: frozenset[int]
    signed: Callable[[bytes], bool]
    proven: bool

    @classmethod
    def by(
        cls, own: Identity, trust: Trust, signed: Callable[[bytes], bool], *, proven: bool
    ) -> Self:
        """Return what decides by a trust."""
        return cls(own, trust.ticket_keys, serials(trust.revoked), signed, proven)

    def check(self, ticket: bytes, wish: LaneWish, caller: Peer | None) -> v1.LaneTicket:
        """Return what a ticket says that is good for this call.

        Args:
            ticket: as it was shown.
            wish: what the call asks for.
            caller: the peer, as TLS has proven it; None where it has not.

        Raises:
            TicketError: it is not good, and why.
        """
        if self.proven:
            self.check_caller(caller)
        said = read_ticket(ticket, self.ticket_keys)
        for what, theirs, asked in (
            ("cluster", said.cluster, self.own.cluster),
            ("namespace", said.namespace, wish.namespace),
            ("pipeline", said.pipeline, wish.pipeline),
            ("lane", said.lane, wish.lane),
            ("producer epoch", said.producer_epoch, wish.producer_epoch),
            ("consumer epoch", said.consumer_epoch, wish.consumer_epoch),
            (
                "node",
                said.consumer_node if wish.here_consumes else said.producer_node,
                self.own.name,
            ),
        ):
            if theirs != asked:
                raise TicketError(f"the ticket is for {what} {theirs!r}, and not for {asked!r}")
        if said.kind not in wish.kinds:
            asked = " or ".join(_KINDS[kind] for kind in sorted(wish.kinds))  # type: ignore[index]
            raise TicketError(
                f"the ticket is for {_KINDS.get(said.kind, said.kind)}, and the call for {asked}"
            )
        if self.proven and caller is not None:
            _check_holder(said, caller.identity)
        return said

    def check_caller(self, caller: Peer | None) -> Peer:
        """Return the caller, which has to be of this cluster, with a certificate that was not revoked.

        Raises:
            TicketError: it is not.
        """
        if caller is None:
            raise TicketError("the certificate of the caller names no identity")
        if caller.identity.cluster != self.own.cluster:
            raise TicketError(
                f"the caller is of cluster {caller.identity.cluster}, and not of {self.own.cluster}"
            )
        if caller.serial in self.revoked:
            raise TicketError(f"the certificate of {caller.identity.described} was revoked")
        if not self.signed(caller.certificate):
            raise TicketError(
                f"the authority of {caller.identity.described} is believed no more; its certificate "
                "has to be renewed"
            )
        return caller


def _check_holder(said: v1.LaneTicket, caller: Identity) -> None:
    if said.kind == v1.LANE_KIND_JOB:
        if (caller.role, caller.name) != (Role.NODE, said.consumer_node):
            raise TicketError(
                f"the ticket is for node/{said.consumer_node}, and {caller.described} shows it"
            )
    elif caller.role is not Role.CONTROLLER:
        raise TicketError(
            f"the ticket is for a controller, and {caller.described} shows it: clients reach a "
            "worker through a controller alone"
        )


def serials(words: Iterable[str]) -> frozenset[int]:
    """Read serial numbers of certificates (hexadecimal); what is none is left out."""
    found: set[int] = set()
    for word in words:
        try:
            found.add(int(word, 16))
        except ValueError:
            continue
    return frozenset(found)
