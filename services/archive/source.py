"""Addresses of files that lie in buckets of their own, for agents that hold no credentials."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from services.archive.object_store import ArchiveUnavailableError
from services.archive.s3_server import S3Server
from shoal.folder_listing import ListedFile

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName"})
_FORBIDDEN = frozenset({"AccessDenied", "AllAccessDisabled", "403"})


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


def parse_prefix(prefix: str) -> tuple[str, str]:
    """Read `s3://bucket/folder/`, in which no character has a meaning of its own.

    Returns:
        The bucket and the prefix of its keys, which may be empty.

    Raises:
        SourceError: when it does not name a bucket.
    """
    scheme, _, rest = prefix.partition("://")
    bucket, slash, key = rest.partition("/")
    if scheme != "s3" or not bucket or not slash:
        raise SourceError(f"prefix {prefix!r} names no folder: write s3://bucket/folder/")
    return bucket, key


class S3Sources:
    """Presigns and lists with the credentials of this process; use it with `async with`.

    Args:
        server: where the server stands.
        reached: where others reach it, which signed addresses name; None for `server`.
    """

    def __init__(self, server: S3Server, reached: S3Server | None = None) -> None:
        self._server = server
        self._reached = reached or server
        self._stack = AsyncExitStack()
        self._clients: dict[S3Server, S3Client] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first address is asked for."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        self._clients.clear()
        await self._stack.aclose()

    async def presign_get(self, source: str, *, expires_seconds: int) -> str:
        """Return an address for GETs of `s3://bucket/key`.

        Raises:
            SourceError: when `source` does not name an object.
            ArchiveUnavailableError: when there are no credentials.
        """
        bucket, key = parse_source(source)
        return await self.presign_object(bucket, key, expires_seconds=expires_seconds)

    async def presign_object(self, bucket: str, key: str, *, expires_seconds: int) -> str:
        """Return an address for GETs of an object.

        Raises:
            ArchiveUnavailableError: when there are no credentials.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            client = await self._open(self._reached)
            return await client.generate_presigned_url(
                "get_object",
                Params={"Bucket": bucket, "Key": key},
                ExpiresIn=expires_seconds,
                HttpMethod="GET",
            )
        except (BotoCoreError, ClientError) as error:
            raise ArchiveUnavailableError(
                f"source s3://{bucket}/{key} cannot be signed: {error}; give the controller "
                "credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error

    async def list_below(self, prefix: str) -> AsyncIterator[ListedFile]:
        """Yield what lies below `s3://bucket/folder/`, in pages of 1,000, with keys below it.

        Raises:
            SourceError: when there is no such bucket, or it may not be listed.
            ArchiveUnavailableError: when the server does not answer.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        bucket, below = parse_prefix(prefix)
        try:
            client = await self._open(self._server)
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
            async for page in pages:
                for entry in page.get("Contents", []):
                    yield ListedFile(
                        entry.get("Key", "").removeprefix(below),
                        entry.get("Size", 0),
                        entry.get("ETag", ""),
                    )
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _NO_BUCKET:
                raise SourceError(
                    f"prefix {prefix!r}: there is no bucket {bucket!r}; correct the name, or make it"
                ) from error
            if code in _FORBIDDEN:
                raise SourceError(
                    f"prefix {prefix!r}: bucket {bucket!r} may not be listed with the credentials of "
                    "this controller; let them do s3:ListBucket and s3:GetObject there"
                ) from error
            raise ArchiveUnavailableError(f"prefix {prefix!r} cannot be listed: {error}") from error
        except BotoCoreError as error:
            raise ArchiveUnavailableError(
                f"prefix {prefix!r} cannot be listed now: {error}; submit again later"
            ) from error

    async def _open(self, server: S3Server) -> "S3Client":
        # Amazon's libraries are as large as everything else together, and few specs need them.
        from services.archive.s3_store import s3_client  # noqa: PLC0415

        async with self._opening:
            if server not in self._clients:
                client = await self._stack.enter_async_context(s3_client(server))
                self._clients[server] = client
            return self._clients[server]
