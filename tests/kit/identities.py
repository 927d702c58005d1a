"""Identities of a cluster for tests: credentials of its own authority, signed tickets, folders of nodes."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

from services.identity.authority import Authority, make_authority
from services.identity.ticket import TicketSigner, new_ticket_key
from services.identity.trust_file import write_trust
from shoal.credentials import Credentials, make_credentials, write_credentials
from shoal.identity import Identity, Role
from shoal.session.trust import Trust
from shoal.signing_request import new_key, signing_request
from shoal.v1 import streams_service_pb2 as v1


@dataclass(eq=False)
class ProvenCluster:
    """A cluster's authority and ticket key, as its controller would have them."""

    cluster: str = "c1"
    authority: Authority = field(init=False)
    signer: TicketSigner = field(init=False)

    def __post_init__(self) -> None:
        self.authority = make_authority(self.cluster, now=dt.datetime.now(dt.UTC))
        self.signer = TicketSigner(new_ticket_key())

    def credentials(self, role: Role, name: str) -> Credentials:
        """Issue a certificate with a key of its own."""
        key = new_key()
        certificate = self.authority.issue(
            signing_request(key, name),
            Identity(self.cluster, role, name),
            now=dt.datetime.now(dt.UTC),
        )
        return make_credentials(key, certificate, self.authority.certificate)

    def trust(self, *revoked: int) -> Trust:
        """What the cluster trusts, without certificates of these serial numbers."""
        return Trust(
            self.authority.certificate,
            (self.signer.public_key,),
            tuple(f"{serial:x}" for serial in revoked),
        )

    def join(self, folder: Path, node: str) -> Credentials:
        """Write the folder that the agent of a node has after joining; returns its credentials."""
        credentials = self.credentials(Role.NODE, node)
        write_credentials(folder, credentials)
        write_trust(folder, self.trust())
        return credentials

    def ticket(self, said: v1.LaneTicket) -> bytes:
        """Sign a ticket."""
        return self.signer.sign(said)
