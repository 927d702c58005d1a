"""Requests about identities: join tokens, certificates and authorities."""

from google.protobuf.duration_pb2 import Duration

from shoal.calls.calls import PAGE_SIZE_MAX, ControllerCalls
from shoal.connection import decoded
from shoal.identity import Role
from shoal.identity_view import (
    AuthorityView,
    CallerView,
    CertificateView,
    IdentityView,
    TokenView,
)
from shoal.text_pattern import text_fits
from shoal.v1 import identity_service_pb2 as v1
from shoal.wire.identity_view import AUTHORITY, CALLER, CERTIFICATE, IDENTITY, ROLE, TOKEN


class IdentityCalls(ControllerCalls):
    """What can be asked of identities; most of it by an operator alone."""

    async def caller(self, *, deadline_seconds: float | None = None) -> CallerView:
        """Return what the controller takes this client for.

        Raises:
            ShoalError: it cannot be reached, or believes nothing of this client.
        """
        answer = await self._call(
            self._held.identity.GetCaller, v1.GetCallerRequest(), deadline_seconds
        )
        return decoded(CALLER.decode, answer)

    async def believed(self) -> bytes:
        """Return the certificates of the authorities that the cluster believes, PEM.

        Raises:
            ShoalError: it cannot be reached, or believes nothing of this client.
        """
        return (await self._call(self._held.identity.GetCaller, v1.GetCallerRequest())).authorities

    async def create_token(
        self,
        role: Role,
        *,
        name_pattern: str = "",
        namespace: str = "",
        ttl_seconds: float = 3600.0,
        uses: int = 1,
    ) -> tuple[str, TokenView]:
        """Make a join token; returns the word to hand over, and the token without its secret.

        Raises:
            ShoalError: the caller is no operator, or there is no such token.
        """
        request = v1.CreateTokenRequest(
            role=ROLE.encode(role),
            name_pattern=name_pattern,
            namespace=namespace,
            ttl=Duration(nanos=round(ttl_seconds % 1 * 1e9), seconds=int(ttl_seconds)),
            uses=uses,
        )
        answer = await self._call(self._held.identity.CreateToken, request)
        return answer.word, decoded(TOKEN.decode, answer.token)

    async def tokens(self) -> tuple[TokenView, ...]:
        """List the join tokens that are good, newest first.

        Raises:
            ShoalError: the caller is no operator.
        """
        pages = self._pages(
            self._held.identity.ListTokens,
            lambda token: v1.ListTokensRequest(page_size=PAGE_SIZE_MAX, page_token=token),
        )
        return tuple([decoded(TOKEN.decode, one) async for page in pages for one in page.tokens])

    async def revoke_token(self, identifier: str) -> None:
        """End a join token; what joined with it stays.

        Raises:
            ShoalError: there is none of that id, or the caller is no operator.
        """
        await self._call(self._held.identity.RevokeToken, v1.RevokeTokenRequest(id=identifier))

    async def certificates(
        self, role: Role | None = None, *, name: str = ""
    ) -> tuple[CertificateView, ...]:
        """List the certificates that are not over, newest first.

        Args:
            role: only those of this role.
            name: a part of the name of the identity, or a pattern of it with `*` or `?`.

        Raises:
            ShoalError: the caller is no operator.
        """
        pages = self._pages(
            self._held.identity.ListCertificates,
            lambda token: v1.ListCertificatesRequest(
                role=ROLE.encode(role) if role is not None else v1.ROLE_UNSPECIFIED,
                page_size=PAGE_SIZE_MAX,
                page_token=token,
                name=name,
            ),
        )
        found = [
            decoded(CERTIFICATE.decode, one) async for page in pages for one in page.certificates
        ]
        # A controller of before does not look at names.
        return tuple(one for one in found if text_fits(name, one.identity.name))

    async def revoke_identity(self, identity: IdentityView) -> int:
        """Revoke every certificate of an identity; returns how many there were.

        Raises:
            ShoalError: there is none, or the caller is no operator.
        """
        request = v1.RevokeIdentityRequest(identity=IDENTITY.encode(identity))
        return (await self._call(self._held.identity.RevokeIdentity, request)).certificates

    async def renew_certificate(self, request: bytes) -> tuple[bytes, bytes]:
        """Get a certificate for the caller's own identity; returns it and the authorities, PEM each.

        Args:
            request: PKCS #10, PEM (`shoal.signing_request`).

        Raises:
            ShoalError: the request is broken, or the caller proves nothing.
        """
        answer = await self._call(
            self._held.identity.RenewCertificate, v1.RenewCertificateRequest(request=request)
        )
        return answer.certificate, answer.trust.authorities

    async def authorities(self) -> tuple[AuthorityView, ...]:
        """List the authorities that are believed, the one that signs first.

        Raises:
            ShoalError: the caller is no operator.
        """
        answer = await self._call(self._held.identity.ListAuthorities, v1.ListAuthoritiesRequest())
        return tuple(decoded(AUTHORITY.decode, one) for one in answer.authorities)

    async def add_authority(self, key: bytes = b"", certificate: bytes = b"") -> AuthorityView:
        """Believe one more authority: a new one, or one whose key and certificate (PEM) are given.

        Raises:
            ShoalError: it cannot sign, or the caller is no operator.
        """
        request = v1.AddAuthorityRequest(key=key, certificate=certificate)
        answer = await self._call(self._held.identity.AddAuthority, request)
        return decoded(AUTHORITY.decode, answer.authority)

    async def use_authority(self, fingerprint: str) -> AuthorityView:
        """Let an authority sign from now on, named by the beginning of its fingerprint.

        Raises:
            ShoalError: there is none, or the caller is no operator.
        """
        request = v1.UseAuthorityRequest(fingerprint=fingerprint)
        answer = await self._call(self._held.identity.UseAuthority, request)
        return decoded(AUTHORITY.decode, answer.authority)

    async def remove_authority(self, fingerprint: str) -> None:
        """Believe an authority no more, named by the beginning of its fingerprint.

        Raises:
            ShoalError: there is none, it signs, or the caller is no operator.
        """
        request = v1.RemoveAuthorityRequest(fingerprint=fingerprint)
        await self._call(self._held.identity.RemoveAuthority, request)
