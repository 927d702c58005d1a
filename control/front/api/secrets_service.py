"""Secrets over gRPC: set, listed and removed, and never read."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from typing import Any

import grpc
import grpc.aio

from control.core.rows import SecretRow
from control.front.access.checked_call import note_of
from control.front.api.memory_page import page_of
from control.front.api.request import namespace_of
from control.front.api.submissions import refused
from control.front.page_token import PageTokens
from control.front.secret_office import SecretOffice, SecretOfficeError
from shoal.names import check_id
from shoal.secret import SecretView
from shoal.text_pattern import text_fits
from shoal.v1 import secrets_service_pb2 as v1
from shoal.v1 import secrets_service_pb2_grpc as v1_grpc
from shoal.wire.pipeline_filter import checked_pattern
from shoal.wire.secret_view import SECRET

Context = grpc.aio.ServicerContext[Any, Any]


class SecretsService(v1_grpc.SecretsServiceServicer):
    """Answers people; `office` keeps the secrets."""

    def __init__(self, office: SecretOffice) -> None:
        self._office = office

    async def SetSecret(
        self, request: v1.SetSecretRequest, context: Context
    ) -> v1.SetSecretResponse:
        """Give a secret a value."""
        namespace, name = namespace_of(request.namespace), check_id("secret", request.name)
        try:
            row = await self._office.set(namespace, name, request.value, note_of(context))
        except SecretOfficeError as error:
            raise refused(error.refusal) from error
        return v1.SetSecretResponse(secret=_secret(row))

    async def ListSecrets(
        self, request: v1.ListSecretsRequest, context: Context
    ) -> v1.ListSecretsResponse:
        """List the secrets of a namespace."""
        name = checked_pattern(request.name, "name")
        page, token = page_of(
            [
                (row, readable)
                for row, readable in self._office.list(namespace_of(request.namespace))
                if text_fits(name, row.name)
            ],
            lambda found: found[0].name,
            request,
            PageTokens("ListSecrets", request),
        )
        return v1.ListSecretsResponse(
            secrets=[_secret(row, readable=readable) for row, readable in page],
            next_page_token=token,
        )

    async def RemoveSecret(
        self, request: v1.RemoveSecretRequest, context: Context
    ) -> v1.RemoveSecretResponse:
        """Remove a secret."""
        namespace, name = namespace_of(request.namespace), check_id("secret", request.name)
        try:
            await self._office.remove(namespace, name, note_of(context))
        except SecretOfficeError as error:
            raise refused(error.refusal) from error
        return v1.RemoveSecretResponse()

    async def RotateSecretKey(
        self, request: v1.RotateSecretKeyRequest, context: Context
    ) -> v1.RotateSecretKeyResponse:
        """Seal all secrets under a new key."""
        try:
            done = await self._office.rotate()
        except SecretOfficeError as error:
            raise refused(error.refusal) from error
        return v1.RotateSecretKeyResponse(
            id=done.key_id, secrets=done.secrets, unreadable=done.unreadable
        )


def _secret(row: SecretRow, *, readable: bool = True) -> v1.Secret:
    return SECRET.encode(
        SecretView(
            row.namespace,
            row.name,
            row.version,
            row.create_time,
            row.update_time,
            row.creator,
            unreadable=not readable,
        )
    )
