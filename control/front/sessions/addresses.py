"""Addresses for agents, which hold no credentials: bundles, files, and places for artifacts."""

import logging
from collections.abc import Mapping

from control.front.object_key import bundle_key, pieces_key
from control.front.source_rule import SourceRule
from services.archive.artifact_key import artifact_key
from services.archive.key import InvalidKeyError
from services.archive.object_store import ArchiveError, ObjectStore
from services.archive.source import S3Sources, SourceError
from services.runtime.log import fields
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.uploads import UploadGrant

LOG = logging.getLogger(__name__)


class Addresses:
    """Presigns with the credentials of this process.

    Args:
        store: the archive.
        sources: buckets that specs name.
        rule: which of them may be read.
        expires_seconds: how long an address is good.
    """

    def __init__(
        self, store: ObjectStore, sources: S3Sources, rule: SourceRule, *, expires_seconds: int
    ) -> None:
        self._store = store
        self._sources = sources
        self._rule = rule
        self._expires_seconds = expires_seconds

    async def bundle_url(self, digest: str) -> str:
        """Return where a bundle can be fetched; empty without a digest."""
        if not digest:
            return ""
        return await self._store.presign_get(
            bundle_key(digest), expires_seconds=self._expires_seconds
        )

    async def bundle_pieces_url(self, digest: str) -> str:
        """Return where the list of a bundle's pieces would be; empty without a digest."""
        if not digest:
            return ""
        return await self._store.presign_get(
            pieces_key(digest), expires_seconds=self._expires_seconds
        )

    async def file_urls(self, assignment: Assignment) -> Mapping[str, str]:
        """Return where the file inputs can be fetched, by name.

        One without an address is left out, and its attempt fails with FETCH.
        """
        urls: dict[str, str] = {}
        for file in assignment.job.files:
            try:
                urls[file.name] = await self._file_url(assignment.ref.namespace, file.source)
            except (SourceError, InvalidKeyError, ArchiveError) as error:
                LOG.warning(
                    "a file input has no address",
                    extra=fields(name=assignment.ref.name, input=file.name, why=error),
                )
        return urls

    async def grant(self, ref: AttemptRef, artifact: Artifact) -> UploadGrant:
        """Return where one artifact may be stored.

        Raises:
            InvalidKeyError: when its path leads out of the attempt's prefix.
            ArchiveUnavailableError: when the archive does not answer.
        """
        key = artifact_key(ref, artifact.path)
        put = await self._store.presign_put(
            key,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            expires_seconds=self._expires_seconds,
        )
        return UploadGrant(artifact.path, key, put.url, put.headers)

    async def _file_url(self, namespace: str, source: str) -> str:
        # A submission was asked the same; this one may be older than the rule.
        self._rule.check(namespace, source)
        if source.startswith(("http://", "https://")):
            return source
        if source.startswith("s3://"):
            return await self._sources.presign_get(source, expires_seconds=self._expires_seconds)
        return await self._store.presign_get(source, expires_seconds=self._expires_seconds)
