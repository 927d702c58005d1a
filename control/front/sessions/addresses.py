"""Addresses for agents, which hold no credentials: bundles, files, and places for artifacts."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

from control.front.object_key import bundle_key, listing_key, pieces_key
from control.front.source_rule import SourceRule
from services.archive.artifact_key import artifact_key
from services.archive.key import InvalidKeyError
from services.archive.object_store import (
    ArchiveError,
    ObjectMissingError,
    ObjectStore,
    UploadMissingError,
)
from services.archive.parts import PartedObject
from services.archive.source import S3Sources, SourceError, parse_prefix
from services.runtime.log import fields
from shoal.folder_listing import FolderListing, ListingError
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.bundles import BundlesWanted, WantedBundle
from shoal.session.folder_files import FilesGranted, FilesWanted
from shoal.session.uploads import ArtifactParts, PartGrant, UploadGrant

PARTS_GRANTED = 64
"""How many addresses of parts an answer has: the agent asks again once it has used them."""

LOG = logging.getLogger(__name__)

_LISTINGS_KEPT: Final = 4
"""Long ones have megabytes, and an agent asks for its addresses one batch after the other."""


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
        self._listings: OrderedDict[str, FolderListing] = OrderedDict()

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

    async def of_bundles(self, wanted: BundlesWanted) -> BundlesWanted:
        """Fill in where bundles can be fetched."""
        bundles = [
            WantedBundle(
                one.digest,
                await self.bundle_url(one.digest),
                await self.bundle_pieces_url(one.digest),
            )
            for one in wanted.bundles
        ]
        return BundlesWanted(tuple(bundles))

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
        for name, digest in assignment.listings.items():
            if digest:
                urls[name] = await self._store.presign_get(
                    listing_key(digest), expires_seconds=self._expires_seconds
                )
        return urls

    async def grant_files(self, assignment: Assignment, wanted: FilesWanted) -> FilesGranted:
        """Return where some files of a folder input can be fetched, or why they cannot be.

        Raises:
            ArchiveUnavailableError: when the archive does not answer.
        """
        granted = FilesGranted(wanted.ref, wanted.input, wanted.first)
        namespace = assignment.ref.namespace
        digest = assignment.listings.get(wanted.input, "")
        if not digest:
            return replace(granted, problem=f"the job has no folder input {wanted.input!r}")
        try:
            listing = await self._listing(digest)
            some = listing.files[wanted.first : wanted.first + wanted.count]
            if not listing.root.startswith("s3://"):
                urls = [
                    await self._store.presign_get(
                        f"{listing.root}{file.key}", expires_seconds=self._expires_seconds
                    )
                    for file in some
                ]
            else:
                # A submission was asked the same; this one may be older than the rule.
                self._rule.check_prefix(namespace, listing.root)
                bucket, below = parse_prefix(listing.root)
                urls = [
                    await self._sources.presign_object(
                        bucket, f"{below}{file.key}", expires_seconds=self._expires_seconds
                    )
                    for file in some
                ]
        except (SourceError, InvalidKeyError, ListingError, ObjectMissingError) as error:
            return replace(granted, problem=str(error))
        return replace(granted, urls=tuple(urls))

    async def _listing(self, digest: str) -> FolderListing:
        known = self._listings.get(digest)
        if known is None:
            data = await self._store.get(listing_key(digest))
            known = await asyncio.to_thread(FolderListing.decode, data)
            self._listings[digest] = known
            while len(self._listings) > _LISTINGS_KEPT:
                self._listings.popitem(last=False)
        self._listings.move_to_end(digest)
        return known

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

    async def grant_parts(
        self, ref: AttemptRef, artifact: Artifact, parts: ArtifactParts
    ) -> UploadGrant:
        """Return where parts that are missing may be stored; once none is, complete the artifact.

        All that is known of the upload is in the archive: asking again after any loss goes on there.

        Raises:
            InvalidKeyError: when its path leads out of the attempt's prefix.
            PartsError: when the parts are not those of the artifact, or no archive takes them.
            ArchiveError: when the archive does not answer.
        """
        key = artifact_key(ref, artifact.path)
        whole = PartedObject(
            artifact.size_bytes, artifact.sha256, parts.part_bytes, parts.part_sha256
        )
        upload_id = parts.upload_id
        try:
            stored = (
                set(await self._store.stored_parts(key, upload_id, whole)) if upload_id else None
            )
            if stored is not None and len(stored) == len(whole.numbers):
                await self._store.complete_upload(key, upload_id, whole)
                return UploadGrant(artifact.path, key, stored=True)
        except UploadMissingError:
            # The answer that it was complete may have been lost.
            stored = None
        if stored is None:
            info = await self._store.head(key)
            if info is not None and (info.size_bytes, info.sha256) == (
                artifact.size_bytes,
                artifact.sha256,
            ):
                return UploadGrant(artifact.path, key, stored=True)
            upload_id = await self._store.begin_upload(key, whole)
        grants: list[PartGrant] = []
        for number in islice(whole.missing(stored or set()), PARTS_GRANTED):
            put = await self._store.presign_part(
                key, upload_id, whole, number, expires_seconds=self._expires_seconds
            )
            grants.append(PartGrant(number, put.url, put.headers))
        return UploadGrant(artifact.path, key, upload_id=upload_id, parts=tuple(grants))

    async def _file_url(self, namespace: str, source: str) -> str:
        # A submission was asked the same; this one may be older than the rule.
        self._rule.check(namespace, source)
        if source.startswith(("http://", "https://")):
            return source
        if source.startswith("s3://"):
            return await self._sources.presign_get(source, expires_seconds=self._expires_seconds)
        return await self._store.presign_get(source, expires_seconds=self._expires_seconds)
