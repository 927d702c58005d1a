"""Identities as clients see them, between `shoal.identity_view` and the contract."""

from shoal.identity import Role
from shoal.identity_view import (
    AuthorityView,
    CallerView,
    CertificateView,
    IdentityView,
    TokenView,
)
from shoal.v1 import identity_service_pb2 as v1
from shoal.wire.codec import codec, enumeration, identifier, maybe, one

ROLE = enumeration(Role, v1.Role, "role")
IDENTITY = codec(IdentityView, v1.Identity, "identity", role=one(ROLE), name=identifier("identity"))
CALLER = codec(
    CallerView,
    v1.GetCallerResponse,
    "caller",
    unread=("authorities",),  # `IdentityCalls.believed` reads it
    identity=maybe(IDENTITY),
)
TOKEN = codec(TokenView, v1.JoinToken, "token", role=one(ROLE))
CERTIFICATE = codec(CertificateView, v1.Certificate, "certificate", identity=one(IDENTITY))
AUTHORITY = codec(AuthorityView, v1.Authority, "authority")
