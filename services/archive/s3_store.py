"""A bucket as an archive, over any server that speaks S3."""

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from services.archive.key import InvalidKeyError, check_key
from services.archive.object_store import (
    ArchiveError,
    ArchiveUnavailableError,
    ListedObject,
    ObjectDigestError,
    ObjectInfo,
    ObjectMissingError,
    PresignedPut,
    PutOutcome,
    SmallObject,
    UnfinishedUpload,
    UploadMissingError,
)
from services.archive.parts import PartedObject
from services.archive.s3_server import S3Server
from services.runtime.log import fields
from shoal.near_address import is_near

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

LOG = logging.getLogger(__name__)

PART_BYTES = 8 * 1024 * 1024
"""Size of the first parts of a multipart upload; S3 takes 10,000 parts of 5 MiB to 5 GiB."""

CONFLICT_TRIES = 5
COPY_BYTES_MAX = 5 * 1024**3
"""Largest object that S3 copies in one request."""

COPY_PART_BYTES = 1024**3
"""Size of the parts in which larger ones are copied."""

READ_BYTES = 256 * 1024
PUTS_AT_ONCE = 32
"""Requests that store one batch of objects at a time: Amazon's server answers one in some 30 ms."""

_DELETED_AT_ONCE = 1_000
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_NO_UPLOAD = frozenset({"NoSuchUpload", "NoSuchKey", "404"})  # radosgw says NoSuchKey
_EXISTS = frozenset({"412", "PreconditionFailed"})
_CONFLICT = frozenset({"409", "ConditionalRequestConflict"})
_UNKNOWN_CONDITION = frozenset({"501", "NotImplemented"})
_BEYOND = frozenset({"416", "InvalidRange"})
_SHA256_METADATA = "sha256"


def s3_client(server: S3Server) -> AbstractAsyncContextManager["S3Client"]:
    """Return a client that opens with `async with`."""
    # Its overloads, one for each service of Amazon's, are more than a type checker can show.
    session = cast("Any", aioboto3.Session())
    client = session.client(
        "s3",
        endpoint_url=server.endpoint or None,
        region_name=server.region,
        config=AioConfig(
            # Or presigned PUTs are refused by servers that check signatures.
            signature_version="s3v4",
            s3={"addressing_style": "path" if server.endpoint else "auto"},
            max_pool_connections=2 * PUTS_AT_ONCE,
            connect_timeout=5,
            read_timeout=60,
            retries={"max_attempts": 4, "mode": "standard"},
            # Checksums that were not asked for change the encoding of the body, which servers other
            # than Amazon's do not always understand.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # A server on one's own network is reached directly, others as the environment says.
            proxies={} if server.endpoint and is_near(server.endpoint) else None,
        ),
    )
    return cast("AbstractAsyncContextManager[S3Client]", client)


class S3Store:
    """Objects of one bucket under a prefix; use it with `async with`.

    Args:
        server: where the server stands.
        bucket: the bucket, which has to exist.
        prefix: put before every key, without slashes at its ends; may be empty.
        new_id: name of the object that probes conditional PUT; never the same twice.
        reached: where others reach the server, which signed addresses name; None for `server`.
    """

    def __init__(
        self,
        server: S3Server,
        bucket: str,
        prefix: str = "",
        *,
        new_id: Callable[[], str],
        reached: S3Server | None = None,
    ) -> None:
        self._server = server
        self._reached = reached or server
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._new_id = new_id
        # Whether the server obeys `If-None-Match: *`; probed, since some ignore it silently.
        self.conditional_put = False
        self._stack = AsyncExitStack()
        self._opened: S3Client | None = None
        # The host is part of a signature, so what signs for another one is a client of its own.
        self._signing: S3Client | None = None

    async def __aenter__(self) -> Self:
        """Connect and probe conditional PUT.

        Raises:
            ArchiveUnavailableError: when the bucket cannot be reached or written.
        """
        async with AsyncExitStack() as stack:
            with self._errors():
                self._opened = await stack.enter_async_context(s3_client(self._server))
                self._signing = self._opened
                if self._reached != self._server:
                    self._signing = await stack.enter_async_context(s3_client(self._reached))
            self.conditional_put = await self._probe()
            self._stack = stack.pop_all()
        if not self.conditional_put:
            LOG.warning(
                "the archive does not obey If-None-Match; the store decides which write was first",
                extra=fields(bucket=self._bucket),
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        self._opened = self._signing = None
        await self._stack.aclose()

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> PutOutcome:
        """Store `data` in one request."""
        full = self._full(key)
        if if_absent and self.conditional_put:
            return await self._put_if_absent(full, data)
        if if_absent and await self.head(key) is not None:
            return PutOutcome.EXISTS
        await self._put_whole(full, data)
        return PutOutcome.STORED

    async def put_many(
        self, objects: Sequence[SmallObject], *, if_absent: bool = False
    ) -> Sequence[PutOutcome]:
        """Store objects in a request each, many at a time; the first failure is raised once none is under way."""
        outcomes: dict[int, PutOutcome] = {}
        failures: list[ArchiveError | InvalidKeyError] = []
        left = iter(enumerate(objects))

        async def put_each() -> None:
            for number, one in left:
                try:
                    outcomes[number] = await self.put(one.key, one.data, if_absent=if_absent)
                except (ArchiveError, InvalidKeyError) as error:
                    failures.append(error)
                    if isinstance(error, ArchiveError):
                        return  # the next would meet the same

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(PUTS_AT_ONCE, len(objects))):
                tasks.create_task(put_each())
        if failures:
            raise failures[0]
        return [outcomes[number] for number in range(len(objects))]

    async def put_stream(
        self, key: str, chunks: AsyncIterator[bytes], *, sha256: str = ""
    ) -> ObjectInfo:
        """Store what `chunks` yields, in parts when there is more than one part of it."""
        full = self._full(key)
        digest = hashlib.sha256()
        size_bytes = 0
        waiting = bytearray()
        upload: _Multipart | None = None
        try:
            async for chunk in chunks:
                digest.update(chunk)
                size_bytes += len(chunk)
                waiting += chunk
                if len(waiting) >= PART_BYTES * (upload.scale if upload else 1):
                    if upload is None:
                        upload = await self._begin(full, sha256)
                    await self._part(upload, bytes(waiting))
                    waiting.clear()
            received = digest.hexdigest()
            if sha256 and received != sha256:
                raise ObjectDigestError(key, announced=sha256, received=received)
            if upload is None:
                await self._put_whole(full, bytes(waiting))
            else:
                if waiting:
                    await self._part(upload, bytes(waiting))
                await self._complete(upload)
                upload = None
        finally:
            if upload is not None:
                await self._abort(upload)
        return ObjectInfo(key, size_bytes, received)

    async def get(self, key: str) -> bytes:
        """Return the whole object."""
        with self._errors(key):
            response = await self._client.get_object(Bucket=self._bucket, Key=self._full(key))
            body = response["Body"]
            async with body:  # its own value is another object, with another `read`
                return await body.read()

    async def read(self, key: str, *, offset: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield `size_bytes` of the object from byte `offset` on."""
        with self._errors(key):
            try:
                response = await self._client.get_object(
                    Bucket=self._bucket,
                    Key=self._full(key),
                    Range=f"bytes={offset}-{offset + size_bytes - 1}",
                )
            except ClientError as error:
                if _code(error) in _BEYOND:
                    return
                raise
            body = response["Body"]
            async with body:
                async for chunk in body.iter_chunks(READ_BYTES):
                    yield chunk

    async def head(self, key: str) -> ObjectInfo | None:
        """Return size and, for objects that were stored by Shoal, SHA-256."""
        full = self._full(key)
        try:
            with self._errors(key):
                response = await self._client.head_object(Bucket=self._bucket, Key=full)
        except ObjectMissingError:
            return None
        sha256 = response.get("Metadata", {}).get(_SHA256_METADATA, "")
        stored = response["LastModified"].timestamp()
        return ObjectInfo(key, response["ContentLength"], sha256, stored)

    async def presign_put(
        self, key: str, *, size_bytes: int, sha256: str, expires_seconds: int
    ) -> PresignedPut:
        """Return an address for a PUT whose size and SHA-256 are part of the signature."""
        checksum = _base64(sha256)
        with self._errors():
            url = await self._signer.generate_presigned_url(
                "put_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": self._full(key),
                    "ContentLength": size_bytes,
                    "ChecksumSHA256": checksum,
                    "Metadata": {_SHA256_METADATA: sha256},
                },
                ExpiresIn=expires_seconds,
                HttpMethod="PUT",
            )
        return PresignedPut(
            url,
            {
                "Content-Length": str(size_bytes),
                "x-amz-checksum-sha256": checksum,
                f"x-amz-meta-{_SHA256_METADATA}": sha256,
            },
        )

    async def presign_get(self, key: str, *, expires_seconds: int) -> str:
        """Return an address for GETs."""
        with self._errors():
            return await self._signer.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._full(key)},
                ExpiresIn=expires_seconds,
                HttpMethod="GET",
            )

    async def get_stream(self, key: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the object from byte `offset` on."""
        full = self._full(key)
        with self._errors(key):
            asked: dict[str, str] = {"Range": f"bytes={offset}-"} if offset else {}
            response = await self._client.get_object(
                Bucket=self._bucket, Key=full, **cast("Any", asked)
            )
            body = response["Body"]
            async with body:
                while chunk := await body.read(READ_BYTES):
                    yield chunk

    async def begin_upload(self, key: str, whole: PartedObject) -> str:
        """Begin a multipart upload whose parts carry SHA-256."""
        with self._errors():
            response = await self._client.create_multipart_upload(
                Bucket=self._bucket,
                Key=self._full(key),
                Metadata={_SHA256_METADATA: whole.sha256},
                ChecksumAlgorithm="SHA256",
            )
        return response["UploadId"]

    async def presign_part(
        self, key: str, upload_id: str, whole: PartedObject, number: int, *, expires_seconds: int
    ) -> PresignedPut:
        """Return an address for a PUT whose size and SHA-256 are part of the signature."""
        checksum = _base64(whole.part_hash(number))
        size_bytes = whole.size(number)
        with self._errors():
            url = await self._signer.generate_presigned_url(
                "upload_part",
                Params={
                    "Bucket": self._bucket,
                    "Key": self._full(key),
                    "UploadId": upload_id,
                    "PartNumber": number,
                    "ContentLength": size_bytes,
                    "ChecksumSHA256": checksum,
                },
                ExpiresIn=expires_seconds,
                HttpMethod="PUT",
            )
        return PresignedPut(
            url, {"Content-Length": str(size_bytes), "x-amz-checksum-sha256": checksum}
        )

    async def stored_parts(self, key: str, upload_id: str, whole: PartedObject) -> Collection[int]:
        """Return the parts that are there with the right size, and hash where the server says it."""
        return (await self._listed_parts(key, upload_id, whole)).keys()

    async def complete_upload(self, key: str, upload_id: str, whole: PartedObject) -> None:
        """Complete a multipart upload with what the server says of its parts."""
        tags = await self._listed_parts(key, upload_id, whole)
        parts: list[CompletedPartTypeDef] = [
            {
                "PartNumber": number,
                "ETag": tags[number],
                "ChecksumSHA256": _base64(whole.part_hash(number)),
            }
            for number in whole.numbers
            if number in tags
        ]
        if len(parts) != len(whole.numbers):
            raise ArchiveUnavailableError(
                f"object {key!r}: {len(parts)} of its {len(whole.numbers)} parts are there; "
                "send the others"
            )
        with self._upload_errors(key):
            await self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._full(key),
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload; harmless if there is none."""
        with contextlib.suppress(UploadMissingError), self._upload_errors(key):
            await self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._full(key), UploadId=upload_id
            )

    async def unfinished_uploads(self) -> AsyncGenerator[UnfinishedUpload, None]:
        """Yield multipart uploads under the prefix, in pages."""
        markers: dict[str, str] = {}
        while True:
            with self._errors():
                page = await self._client.list_multipart_uploads(
                    Bucket=self._bucket, Prefix=self._prefix, **cast("Any", markers)
                )
            for upload in page.get("Uploads", []):
                full = upload.get("Key", "")
                begun = upload.get("Initiated")
                # Not every server takes the prefix into account.
                if full.startswith(self._prefix) and begun is not None:
                    key = full[len(self._prefix) :]
                    yield UnfinishedUpload(key, upload.get("UploadId", ""), begun.timestamp())
            if not page.get("IsTruncated"):
                return
            markers = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }

    async def list_objects(self, prefix: str = "") -> AsyncGenerator[ListedObject, None]:
        """Yield objects, in pages of 1,000."""
        token: dict[str, str] = {}
        while True:
            with self._errors():
                page = await self._client.list_objects_v2(
                    Bucket=self._bucket, Prefix=f"{self._prefix}{prefix}", **cast("Any", token)
                )
            for entry in page.get("Contents", []):
                yield ListedObject(
                    entry.get("Key", "")[len(self._prefix) :],
                    entry.get("Size", 0),
                    entry["LastModified"].timestamp() if "LastModified" in entry else 0.0,
                )
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page.get("NextContinuationToken", "")}

    async def delete(self, keys: Collection[str]) -> None:
        """Delete objects, a thousand in one request."""
        left = [self._full(key) for key in keys]
        while left:
            some, left = left[:_DELETED_AT_ONCE], left[_DELETED_AT_ONCE:]
            with self._errors():
                answer = await self._client.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": full} for full in some], "Quiet": True},
                )
            for error in answer.get("Errors", []):
                raise ArchiveUnavailableError(
                    f"object {error.get('Key')!r} cannot be removed: {error.get('Message')}"
                )

    async def refresh(self, key: str) -> None:
        """Copy an object onto itself; one that is too large for that stays as old as it is."""
        info = await self.head(key)
        if info is None or info.size_bytes > COPY_BYTES_MAX:
            return
        full = self._full(key)
        with contextlib.suppress(ObjectMissingError), self._errors(key):
            await self._client.copy_object(
                Bucket=self._bucket,
                Key=full,
                CopySource={"Bucket": self._bucket, "Key": full},
                MetadataDirective="REPLACE",
                Metadata={_SHA256_METADATA: info.sha256} if info.sha256 else {},
            )

    async def copy(self, key: str, to: str) -> None:
        """Copy within the bucket, in parts where the object is larger than S3 copies at once."""
        source = {"Bucket": self._bucket, "Key": self._full(key)}
        full = self._full(to)
        info = await self.head(key)
        if info is None:
            raise ObjectMissingError(key)
        if info.size_bytes <= COPY_BYTES_MAX:
            with self._errors(key):
                await self._client.copy_object(
                    Bucket=self._bucket, Key=full, CopySource=cast("Any", source)
                )
            return
        upload = await self._begin(full, info.sha256)
        try:
            for begin in range(0, info.size_bytes, COPY_PART_BYTES):
                end = min(begin + COPY_PART_BYTES, info.size_bytes) - 1
                number = len(upload.parts) + 1
                with self._errors(key):
                    response = await self._client.upload_part_copy(
                        Bucket=self._bucket,
                        Key=full,
                        CopySource=cast("Any", source),
                        CopySourceRange=f"bytes={begin}-{end}",
                        PartNumber=number,
                        UploadId=upload.id,
                    )
                tag = response["CopyPartResult"].get("ETag", "")
                upload.parts.append({"ETag": tag, "PartNumber": number})
            await self._complete(upload)
        except BaseException:
            await self._abort(upload)
            raise

    async def _listed_parts(self, key: str, upload_id: str, whole: PartedObject) -> dict[int, str]:
        """Return the tags of the parts that are there and right, by their numbers."""
        tags: dict[int, str] = {}
        marker: dict[str, int] = {}
        while True:
            with self._upload_errors(key):
                page = await self._client.list_parts(
                    Bucket=self._bucket,
                    Key=self._full(key),
                    UploadId=upload_id,
                    **cast("Any", marker),
                )
            for part in page.get("Parts", []):
                number = part.get("PartNumber", 0)
                if number not in whole.numbers or part.get("Size") != whole.size(number):
                    continue
                checksum = _base64(whole.part_hash(number))
                if part.get("ChecksumSHA256", checksum) == checksum:
                    tags[number] = part.get("ETag", "")
            following = int(page.get("NextPartNumberMarker", 0) or 0)
            if not page.get("IsTruncated") or not following:
                return tags
            marker = {"PartNumberMarker": following}

    @contextmanager
    def _upload_errors(self, key: str) -> Iterator[None]:
        with self._errors():
            try:
                yield
            except ClientError as error:
                if _code(error) in _NO_UPLOAD:
                    raise UploadMissingError(key) from error
                raise

    @property
    def _client(self) -> "S3Client":
        return _open(self._opened)

    @property
    def _signer(self) -> "S3Client":
        return _open(self._signing)

    def _full(self, key: str) -> str:
        check_key(key)
        return check_key(f"{self._prefix}{key}")

    async def _probe(self) -> bool:
        full = f"{self._prefix}.probe/{self._new_id()}"
        with self._errors():
            try:
                for _ in range(2):
                    await self._client.put_object(
                        Bucket=self._bucket, Key=full, Body=b"probe", IfNoneMatch="*"
                    )
            except ClientError as error:
                if _code(error) in _EXISTS:
                    return True
                if _code(error) in _UNKNOWN_CONDITION:
                    return False
                raise
            else:
                return False
            finally:
                await self._client.delete_object(Bucket=self._bucket, Key=full)

    async def _put_whole(self, full: str, data: bytes) -> None:
        with self._errors():
            await self._client.put_object(
                Bucket=self._bucket, Key=full, Body=data, **_integrity(data)
            )

    async def _put_if_absent(self, full: str, data: bytes) -> PutOutcome:
        with self._errors():
            for _ in range(CONFLICT_TRIES):
                try:
                    await self._client.put_object(
                        Bucket=self._bucket,
                        Key=full,
                        Body=data,
                        IfNoneMatch="*",
                        **_integrity(data),
                    )
                except ClientError as error:
                    if _code(error) in _EXISTS:
                        return PutOutcome.EXISTS
                    if _code(error) not in _CONFLICT:
                        raise
                else:
                    return PutOutcome.STORED
        raise ArchiveUnavailableError(
            f"object {full!r}: {CONFLICT_TRIES} conditional PUTs met a conflict; try again later"
        )

    async def _begin(self, full: str, sha256: str) -> "_Multipart":
        metadata = {_SHA256_METADATA: sha256} if sha256 else {}
        with self._errors():
            response = await self._client.create_multipart_upload(
                Bucket=self._bucket, Key=full, Metadata=metadata
            )
        return _Multipart(full, response["UploadId"], [])

    async def _part(self, upload: "_Multipart", data: bytes) -> None:
        number = len(upload.parts) + 1
        with self._errors():
            response = await self._client.upload_part(
                Bucket=self._bucket,
                Key=upload.full,
                UploadId=upload.id,
                PartNumber=number,
                Body=data,
            )
        upload.parts.append({"ETag": response["ETag"], "PartNumber": number})

    async def _complete(self, upload: "_Multipart") -> None:
        with self._errors():
            await self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=upload.full,
                UploadId=upload.id,
                MultipartUpload={"Parts": upload.parts},
            )

    async def _abort(self, upload: "_Multipart") -> None:
        """Let the server forget the parts; what is left of them is garbage and not an object."""
        try:
            with self._errors():
                await self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=upload.full, UploadId=upload.id
                )
        except (ArchiveUnavailableError, ObjectMissingError) as error:
            LOG.warning(
                "parts of an unfinished upload stay in the archive",
                extra=fields(key=upload.full, upload=upload.id, why=error),
            )

    @contextmanager
    def _errors(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if key and _code(error) in _MISSING:
                raise ObjectMissingError(key) from error
            raise ArchiveUnavailableError(
                f"the archive s3://{self._bucket} refuses: {error}"
            ) from error
        except (BotoCoreError, OSError) as error:
            where = self._server.endpoint or "Amazon S3"
            raise ArchiveUnavailableError(
                f"the archive s3://{self._bucket} at {where} does not answer: {error}"
            ) from error


@dataclass(slots=True)
class _Multipart:
    full: str
    id: str
    parts: "list[CompletedPartTypeDef]"

    @property
    def scale(self) -> int:
        """How many times larger the next part is: 10,000 parts have to be enough."""
        return 1 + len(self.parts) // 500


def _open(client: "S3Client | None") -> "S3Client":
    if client is None:
        raise RuntimeError("this archive is not open: use it with `async with`")
    return client


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _integrity(data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data)
    return {
        "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
        "Metadata": {_SHA256_METADATA: digest.hexdigest()},
    }


def _code(error: ClientError) -> str:
    response = cast("dict[str, Any]", error.response)
    return str(response.get("Error", {}).get("Code", ""))
