"""Identities of a cluster over gRPC: tokens, certificates, authorities, and what the caller is known by."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from control.core.rows import CertificateRow, Holder, TokenRow
from control.front.api.memory_page import key_of, page_of
from control.front.api.submissions import refused
from control.front.page_token import PageTokens
from control.front.registrar import Registrar, RegistrarError, Wanted
from control.front.rpc_status import invalid
from services.identity.authority import Authority, end_of
from services.runtime.peer import Peer, peer_of
from services.runtime.rpc import rpc_error
from shoal.identity import Identity, Role
from shoal.names import check_id
from shoal.text_pattern import text_fits
from shoal.v1 import identity_service_pb2 as v1
from shoal.v1 import identity_service_pb2_grpc as v1_grpc
from shoal.wire.pipeline_filter import checked_pattern
from shoal.wire.trust import PEM_BYTES_MAX, TRUST

Context = grpc.aio.ServicerContext[Any, Any]

_ROLES: Final = {
    Role.CONTROLLER: v1.ROLE_CONTROLLER,
    Role.NODE: v1.ROLE_NODE,
    Role.VIEWER: v1.ROLE_VIEWER,
    Role.SUBMITTER: v1.ROLE_SUBMITTER,
    Role.OPERATOR: v1.ROLE_OPERATOR,
    Role.GATEWAY: v1.ROLE_GATEWAY,
}
_NAMES: Final = {number: role for role, number in _ROLES.items()}


class IdentityService(v1_grpc.IdentityServiceServicer):
    """Answers people, and whatever has an identity.

    Args:
        cluster: returns the id of the cluster.
        registrar: issues what is asked for; None for a controller with --insecure.
    """

    def __init__(self, cluster: Callable[[], str], registrar: Registrar | None) -> None:
        self._cluster = cluster
        self._registrar = registrar

    async def GetCaller(
        self, request: v1.GetCallerRequest, context: Context
    ) -> v1.GetCallerResponse:
        """Return the identity of the caller, as its certificate proves."""
        peer = peer_of(context)
        return v1.GetCallerResponse(
            identity=None if peer is None else _identity(peer.identity),
            cluster_id=self._cluster(),
            authorities=b""
            if self._registrar is None
            else self._registrar.trust(Role.VIEWER).authorities,
        )

    async def CreateToken(
        self, request: v1.CreateTokenRequest, context: Context
    ) -> v1.CreateTokenResponse:
        """Make a join token."""
        registrar = self._open()
        wanted = Wanted(
            _role(request.role),
            request.name_pattern,
            request.namespace,
            _span(request.ttl) if request.HasField("ttl") else None,
            request.uses,
        )
        try:
            word, row = await registrar.create_token(wanted, _described(context))
        except RegistrarError as error:
            raise refused(error.refusal) from error
        return v1.CreateTokenResponse(word=word, token=_token(row))

    async def ListTokens(
        self, request: v1.ListTokensRequest, context: Context
    ) -> v1.ListTokensResponse:
        """List join tokens that are good, newest first."""
        page, token = page_of(
            self._open().tokens(),
            lambda row: key_of(row.create_time, row.id),
            request,
            PageTokens("ListTokens", request),
            backwards=True,
        )
        return v1.ListTokensResponse(tokens=map(_token, page), next_page_token=token)

    async def RevokeToken(
        self, request: v1.RevokeTokenRequest, context: Context
    ) -> v1.RevokeTokenResponse:
        """End a join token."""
        try:
            await self._open().revoke_token(request.id)
        except RegistrarError as error:
            raise refused(error.refusal) from error
        return v1.RevokeTokenResponse()

    async def ListCertificates(
        self, request: v1.ListCertificatesRequest, context: Context
    ) -> v1.ListCertificatesResponse:
        """List certificates that are not over, newest first."""
        only = _role(request.role) if request.role else None
        name = checked_pattern(request.name, "name")
        page, token = page_of(
            [
                row
                for row in self._open().certificates()
                if only in {None, row.role} and text_fits(name, row.name)
            ],
            lambda row: key_of(row.issue_time, row.serial),
            request,
            PageTokens("ListCertificates", request),
            backwards=True,
        )
        return v1.ListCertificatesResponse(
            certificates=map(_certificate, page), next_page_token=token
        )

    async def RevokeIdentity(
        self, request: v1.RevokeIdentityRequest, context: Context
    ) -> v1.RevokeIdentityResponse:
        """Revoke every certificate of an identity."""
        said = request.identity
        holder = Holder(_role(said.role), check_id("name", said.name), said.namespace)
        try:
            count = await self._open().revoke(holder, _described(context))
        except RegistrarError as error:
            raise refused(error.refusal) from error
        return v1.RevokeIdentityResponse(certificates=count)

    async def RenewCertificate(
        self, request: v1.RenewCertificateRequest, context: Context
    ) -> v1.RenewCertificateResponse:
        """Issue a certificate for the caller's own identity and a new key."""
        registrar = self._open()
        peer = _peer(context)
        _check_size("request", request.request)
        try:
            row = await registrar.renew(peer, request.request)
        except RegistrarError as error:
            raise refused(error.refusal) from error
        return v1.RenewCertificateResponse(
            certificate=row.pem, trust=TRUST.encode(registrar.trust(Role.VIEWER))
        )

    async def ListAuthorities(
        self, request: v1.ListAuthoritiesRequest, context: Context
    ) -> v1.ListAuthoritiesResponse:
        """List the authorities that are believed, the one that signs first."""
        registrar = self._open()
        return v1.ListAuthoritiesResponse(
            authorities=[_authority(registrar, one) for one in registrar.authorities]
        )

    async def AddAuthority(
        self, request: v1.AddAuthorityRequest, context: Context
    ) -> v1.AddAuthorityResponse:
        """Believe one more authority, which does not sign yet."""
        registrar = self._open()
        _check_size("key", request.key)
        _check_size("certificate", request.certificate)
        given = bool(request.key), bool(request.certificate)
        if any(given) and not all(given):
            raise invalid(
                "INVALID_AUTHORITY", "an authority is imported with its key and its certificate"
            )
        authority = Authority(request.key, request.certificate) if all(given) else None
        try:
            added = await registrar.add_authority(authority)
        except RegistrarError as error:
            raise refused(error.refusal) from error
        return v1.AddAuthorityResponse(authority=_authority(registrar, added))

    async def UseAuthority(
        self, request: v1.UseAuthorityRequest, context: Context
    ) -> v1.UseAuthorityResponse:
        """Let an authority sign from now on."""
        registrar = self._open()
        try:
            used = await registrar.use_authority(request.fingerprint)
        except RegistrarError as error:
            raise refused(error.refusal) from error
        return v1.UseAuthorityResponse(authority=_authority(registrar, used))

    async def RemoveAuthority(
        self, request: v1.RemoveAuthorityRequest, context: Context
    ) -> v1.RemoveAuthorityResponse:
        """Believe an authority no more."""
        try:
            await self._open().remove_authority(request.fingerprint)
        except RegistrarError as error:
            raise refused(error.refusal) from error
        return v1.RemoveAuthorityResponse()

    def _open(self) -> Registrar:
        """Return the registrar.

        Raises:
            RpcError: the controller runs with --insecure.
        """
        if self._registrar is None:
            raise rpc_error(
                grpc.StatusCode.FAILED_PRECONDITION,
                "INSECURE",
                "this controller runs with --insecure, so there are no identities: start it without that, "
                "and let its nodes join",
            )
        return self._registrar


def _peer(context: Context) -> Peer:
    peer = peer_of(context)
    if peer is None:
        raise rpc_error(
            grpc.StatusCode.UNAUTHENTICATED, "NO_IDENTITY", "the caller proves no identity"
        )
    return peer


def _described(context: Context) -> str:
    peer = peer_of(context)
    return "" if peer is None else peer.identity.described


def _role(number: int) -> Role:
    role = _NAMES.get(v1.Role.ValueType(number))
    if role is None:
        raise invalid("INVALID_ROLE", f"{number} is no role", field="role")
    return role


def _span(duration: Duration) -> timedelta:
    try:
        return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
    except OverflowError:
        return timedelta.max


def _check_size(field: str, value: bytes) -> None:
    if len(value) > PEM_BYTES_MAX:
        raise invalid(
            "INVALID_FIELD",
            f"{field} has {len(value)} bytes; at most {PEM_BYTES_MAX} are taken",
            field=field,
        )


def _moment(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    found = Timestamp()
    found.FromDatetime(time)
    return found


def _identity(identity: Identity) -> v1.Identity:
    return v1.Identity(role=_ROLES[identity.role], name=identity.name, namespace=identity.namespace)


def _token(row: TokenRow) -> v1.JoinToken:
    return v1.JoinToken(
        id=row.id,
        role=_ROLES[row.role],
        name_pattern=row.name_pattern,
        namespace=row.namespace,
        create_time=_moment(row.create_time),
        expire_time=_moment(row.expire_time),
        uses_left=max(row.uses_left, 0),
        creator=row.creator,
    )


def _certificate(row: CertificateRow) -> v1.Certificate:
    return v1.Certificate(
        serial=row.serial,
        identity=v1.Identity(role=_ROLES[row.role], name=row.name, namespace=row.namespace),
        issue_time=_moment(row.issue_time),
        expire_time=_moment(row.expire_time),
        revoke_time=_moment(row.revoke_time),
        token_id=row.token_id,
    )


def _authority(registrar: Registrar, authority: Authority) -> v1.Authority:
    return v1.Authority(
        fingerprint=authority.fingerprint,
        signs=authority == registrar.authorities[0],
        expire_time=_moment(end_of(authority.certificate)),
        certificates=registrar.signed_by(authority.fingerprint),
    )
