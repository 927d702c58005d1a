"""The identity of a process or a person in a cluster: its certificate says it, and nothing else does.

Rule: an identity is the URI in a certificate that the cluster's authority has signed; a name that
comes in a message or in a gossip tag is a hint. The URI follows SPIFFE
(SPIFFE-ID, sections 2 and 3): `spiffe://CLUSTER/ROLE/NAME`, and
`spiffe://CLUSTER/ROLE/NAMESPACE/NAME` for one that is bound to a namespace. Beside it stands a DNS
name, because that is what TLS libraries compare with what the dialler expects (RFC 9525).

Example: `spiffe://4f1c2a/node/cam-1` and `cam-1.node.4f1c2a.shoal`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shoal.names import ID_PATTERN

SCHEME: Final = "spiffe://"


class Role(StrEnum):
    """What an identity may be in a cluster."""

    CONTROLLER = "controller"
    NODE = "node"
    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"
    GATEWAY = "gateway"


IN_NAMESPACE: Final = frozenset({Role.VIEWER, Role.SUBMITTER})
"""Roles that may be bound to one namespace."""


LOCAL_OPERATOR: Final = "local"
"""Name of the operator whose credentials the controller itself keeps; no token brings it."""


class IdentityError(ValueError):
    """A word that names no identity."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity of a cluster.

    Attributes:
        cluster: id of the cluster, drawn when its authority was made.
        role: what it may be.
        name: unique among the identities of its role; a node's is the name of the node.
        namespace: the only one in which it has its role; empty for all of them.

    Raises:
        IdentityError: a part is no id, or the role is not bound to namespaces.
    """

    cluster: str
    role: Role
    name: str
    namespace: str = ""

    def __post_init__(self) -> None:
        if not self.cluster.isalnum() or not self.cluster.isascii():
            raise IdentityError(f"cluster {self.cluster!r} is no id of a cluster")
        for what, value in (("name", self.name), ("namespace", self.namespace or "x")):
            if ID_PATTERN.fullmatch(value) is None:
                raise IdentityError(
                    f"{what} {value!r} is not a valid id: use a lower-case letter, then up to 62 "
                    "lower-case letters, digits or hyphens"
                )
        if self.namespace and self.role not in IN_NAMESPACE:
            raise IdentityError(f"a {self.role} is not bound to a namespace ({self.namespace!r})")

    @property
    def uri(self) -> str:
        """The URI that stands in its certificate."""
        words = (self.cluster, self.role, self.namespace, self.name)
        return SCHEME + "/".join(filter(None, words))

    @property
    def dns(self) -> str:
        """The DNS name that stands in its certificate."""
        return dns_name(self.cluster, self.role, self.name)

    @property
    def described(self) -> str:
        """It without its cluster, as logs and events name it: `node/cam-1`, `viewer/lab/ann`."""
        return "/".join(filter(None, (self.role, self.namespace, self.name)))


def dns_name(cluster: str, role: Role, name: str = "") -> str:
    """Return the name that a dialler expects; every controller of a cluster has the one without a name."""
    return ".".join(
        filter(None, (name if role is not Role.CONTROLLER else "", role, cluster, "shoal"))
    )


def parse_uri(uri: str) -> Identity:
    """Read the URI of an identity.

    Raises:
        IdentityError: it is none.
    """
    words = uri.removeprefix(SCHEME).split("/")
    if not uri.startswith(SCHEME) or len(words) not in {3, 4} or words[1] not in set(Role):
        raise IdentityError(f"{uri!r} is not spiffe://CLUSTER/ROLE/[NAMESPACE/]NAME")
    namespace = words[2] if len(words) == 4 else ""
    if len(words) == 4 and not namespace:
        raise IdentityError(f"{uri!r} has an empty namespace")
    return Identity(words[0], Role(words[1]), words[-1], namespace)
