"""Requests about secrets: values are given, and never asked for."""

from shoal.calls.calls import PAGE_SIZE_MAX, ControllerCalls
from shoal.connection import decoded
from shoal.errors import ShoalError
from shoal.secret import SecretView, value_problem
from shoal.v1 import secrets_service_pb2 as v1
from shoal.wire.secret_view import SECRET


class SecretCalls(ControllerCalls):
    """What can be asked of the secrets of the client's namespace."""

    async def set_secret(self, name: str, value: bytes) -> SecretView:
        """Give a secret a value, of 4 to 16,384 bytes; attempts that begin from now on get it.

        Raises:
            ShoalError: the value cannot be kept, the caller may not, or the controller proves no identity; then
                the value was not sent.
        """
        if problem := value_problem(value):
            raise ShoalError(
                "INVALID_SECRET", f"the value of secret {name} {problem}", code="INVALID_ARGUMENT"
            )
        if self.credentials is None:
            raise ShoalError(
                "INSECURE",
                f"the value of secret {name} was not sent: {self.address} is talked to without TLS; log in to the "
                "controller (shoal login), or start it without --insecure",
                code="FAILED_PRECONDITION",
            )
        request = v1.SetSecretRequest(namespace=self.namespace, name=name, value=value)
        answer = await self._call(self._held.secrets.SetSecret, request)
        return decoded(SECRET.decode, answer.secret)

    async def secrets(self) -> tuple[SecretView, ...]:
        """List the secrets of the namespace, by name, without their values.

        Raises:
            ShoalError: the caller may not look into the namespace.
        """
        pages = self._pages(
            self._held.secrets.ListSecrets,
            lambda token: v1.ListSecretsRequest(
                namespace=self.namespace, page_size=PAGE_SIZE_MAX, page_token=token
            ),
        )
        return tuple([decoded(SECRET.decode, one) async for page in pages for one in page.secrets])

    async def remove_secret(self, name: str) -> None:
        """Remove a secret; attempts that have it keep it.

        Raises:
            ShoalError: there is none, or the caller may not.
        """
        request = v1.RemoveSecretRequest(namespace=self.namespace, name=name)
        await self._call(self._held.secrets.RemoveSecret, request)

    async def rotate_secret_key(self) -> tuple[str, int, int]:
        """Seal all secrets of the cluster under a new key.

        Returns:
            The id of the key, how many secrets it seals, and how many are sealed under a key that is lost.

        Raises:
            ShoalError: the caller is no operator, or the key cannot be written.
        """
        answer = await self._call(self._held.secrets.RotateSecretKey, v1.RotateSecretKeyRequest())
        return answer.id, answer.secrets, answer.unreadable
