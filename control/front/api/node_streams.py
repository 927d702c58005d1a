"""How a controller reaches the stream workers of nodes, for clients: it proves itself, and signs a ticket."""

import grpc.aio

from control.front.api.placement import ReplicaPlace
from services.identity.cluster_identity import ClusterIdentity
from services.runtime.stream_address import reached
from shoal.channel import STREAM, channel_options, open_channel
from shoal.identity import Role, dns_name
from shoal.v1.streams_service_pb2 import LaneTicket


class NodeStreams:
    """Channels to stream workers, and tickets for calls on them.

    Args:
        identity: what the controller proves and signs with; None in a cluster without identity.
    """

    def __init__(self, identity: ClusterIdentity | None = None) -> None:
        self._identity = identity

    def channel(self, place: ReplicaPlace) -> grpc.aio.Channel:
        """Return a channel to the stream worker of a node, which has to prove that it is of that node.

        One that streams in the clear (`--streams-security ticket`) is dialled in the clear.
        """
        address, clear = reached(place.address)
        options = channel_options(STREAM)
        if self._identity is None or clear:
            return open_channel(address, options)
        expect = dns_name(self._identity.cluster, Role.NODE, place.node)
        return open_channel(address, options, self._identity.credentials, expect=expect)

    def ticket(self, said: LaneTicket) -> bytes:
        """Sign a ticket in this cluster for one call; empty in a cluster without identity."""
        if self._identity is None:
            return b""
        said.cluster = self._identity.cluster
        return self._identity.signer.sign(said)
