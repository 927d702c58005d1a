"""Addresses of files that lie in buckets of their own, for agents that hold no credentials."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from services.archive.object_store import ArchiveUnavailableError
from services.archive.s3_server import S3Server

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


class SourceError(ValueError):
    """A source that names no object, or one that may not be read."""


def parse_source(source: str) -> tuple[str, str]:
    """Read `s3://bucket/key`.

    Returns:
        The bucket and the key.

    Raises:
        SourceError: when it does not name an object.
    """
    try:
        parts = urlsplit(source)
    except ValueError:
        parts = urlsplit("")
    key = unquote(parts.path).lstrip("/")
    if parts.scheme != "s3" or not parts.netloc or not key:
        raise SourceError(f"source {source!r} does not name an object: write s3://bucket/key")
    return parts.netloc, key


class S3Sources:
    """Presigns `s3://bucket/key` with the credentials of this process; use it with `async with`."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._stack = AsyncExitStack()
        self._client: S3Client | None = None

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first address is asked for."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        self._client = None
        await self._stack.aclose()

    async def presign_get(self, source: str, *, expires_seconds: int) -> str:
        """Return an address for GETs of `s3://bucket/key`.

        Raises:
            SourceError: when `source` does not name an object.
            ArchiveUnavailableError: when there are no credentials.
        """
        bucket, key = parse_source(source)
        # Amazon's libraries are as large as everything else together, and few specs need them.
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        from services.archive.s3_store import s3_client  # noqa: PLC0415

        try:
            client = self._client
            if client is None:
                client = await self._stack.enter_async_context(s3_client(self._server))
                self._client = client
            return await client.generate_presigned_url(
                "get_object",
                Params={"Bucket": bucket, "Key": key},
                ExpiresIn=expires_seconds,
                HttpMethod="GET",
            )
        except (BotoCoreError, ClientError) as error:
            raise ArchiveUnavailableError(
                f"source {source!r} cannot be signed: {error}; give the controller credentials "
                "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
