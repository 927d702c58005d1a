"""What is found for the folder inputs of a submission, once, so that every attempt gets the same files.

Rule: what was found is an object of the archive before the submission is recorded, under the SHA-256 of
its content, and the row of the pipeline names that. So no attempt can see another list, and no later
change of a bucket goes unnoticed: each file is listed with the ETag or the hash that it has to have.

Why not in the row: 50,000 files are megabytes, and the control machine holds the rows of all that waits.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from control.core.errors import UnknownPipelineError
from control.front.object_key import listing_key
from control.front.read_model import ReadModel
from services.archive.artifact_key import LOG_PATHS
from services.archive.object_store import ArchiveUnavailableError, ObjectStore
from services.archive.source import S3Sources, SourceError
from shoal import limits
from shoal.folder_listing import FolderListing, ListedFile, listing_digest
from shoal.names import PipelineRef
from shoal.placed_folder import FolderError, PlacedFolder, check_folders, chosen
from shoal.spec import FolderInput, Job, Pipeline

_SECONDS_MAX: Final = 20.0  # less than a client waits
_AT_ONCE: Final = 8


class FolderInputError(Exception):
    """A folder input cannot be had as it is written; `path` is where it stands in the specification."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class _Found:
    """A listing that is pinned once its content is in the archive."""

    place: str
    digest: str
    data: bytes


class FolderListings:
    """Lists prefixes and manifests, and keeps what it found.

    Args:
        store: the archive.
        sources: buckets that specs name.
        shown: knows what jobs have committed.
        sparing: held while something is stored, so that it does not go as garbage just then.
        seconds_max: how long finding everything of one submission may take.
    """

    def __init__(
        self,
        store: ObjectStore,
        sources: S3Sources,
        shown: ReadModel,
        sparing: asyncio.Lock,
        *,
        seconds_max: float = _SECONDS_MAX,
    ) -> None:
        self._store = store
        self._sources = sources
        self._shown = shown
        self._sparing = sparing
        self._seconds_max = seconds_max
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def pin(self, namespace: str, spec: Pipeline) -> Mapping[str, str]:
        """Find the files of all folder inputs, and keep the lists; the digests by `JOB/INPUT`.

        Which buckets may be read is `SourceRule`'s to say, and was said before.

        Raises:
            FolderInputError: there are none, or the job cannot run with those that there are.
            ArchiveUnavailableError: a bucket or the archive does not answer.
        """
        try:
            async with asyncio.timeout(self._seconds_max), self._free:
                found = [
                    one
                    for job in spec.jobs
                    if job.folders
                    for one in await self._job(namespace, job)
                ]
                for one in found:
                    # Also where it is there: as young as now, it is no garbage.
                    async with self._sparing:
                        await self._store.put(listing_key(one.digest), one.data)
        except TimeoutError as error:
            raise ArchiveUnavailableError(
                f"the folder inputs of {spec.name!r} were not found within "
                f"{self._seconds_max:g} s: submit again when their buckets answer sooner"
            ) from error
        return {one.place: one.digest for one in found}

    async def _job(self, namespace: str, job: Job) -> list[_Found]:
        placed: dict[str, PlacedFolder] = {}
        found: list[_Found] = []
        for folder in job.folders:
            path = f"jobs.{job.name}.inputs.{folder.name}"
            try:
                listing = await self._listing(namespace, folder)
            except (SourceError, FolderError) as error:
                kind = "prefix" if folder.prefix else "artifacts"
                raise FolderInputError(f"{path}.{kind}", str(error)) from error
            placed[folder.name] = PlacedFolder(folder, listing)
            data = await asyncio.to_thread(listing.encode)
            found.append(_Found(f"{job.name}/{folder.name}", listing_digest(data), data))
        try:
            await asyncio.to_thread(check_folders, job, placed)
        except FolderError as error:
            raise FolderInputError(f"jobs.{job.name}.inputs", str(error)) from error
        return found

    async def _listing(self, namespace: str, folder: FolderInput) -> FolderListing:
        root, every = await (
            self._below(folder) if folder.prefix else self._committed(namespace, folder)
        )
        files = await asyncio.to_thread(chosen, folder, every)
        if not files:
            said = f"none of its {len(every)} keys is taken" if every else "there is nothing"
            raise FolderError(
                f"no file is to be fetched from {folder.prefix or folder.artifacts}: {said}; "
                "correct the name, or store the files first"
            )
        return FolderListing(root, files)

    async def _below(self, folder: FolderInput) -> tuple[str, list[ListedFile]]:
        found: list[ListedFile] = []
        async for one in self._sources.list_below(folder.prefix):
            if len(found) == limits.FOLDER_KEYS_MAX:
                raise FolderError(
                    f"{folder.prefix} has more than {limits.FOLDER_KEYS_MAX} keys: "
                    "name a longer prefix"
                )
            found.append(one)
        return folder.prefix, found

    async def _committed(self, namespace: str, folder: FolderInput) -> tuple[str, list[ListedFile]]:
        """What a job committed; its logs are taken where a pattern names them."""
        pipeline, _, name = folder.artifacts.partition("/")
        ref = PipelineRef(namespace, pipeline)
        try:
            view = await self._shown.find(ref)
        except UnknownPipelineError:
            raise FolderError(
                f"there is no pipeline {pipeline!r} in namespace {namespace!r}: `shoal status` "
                "lists them"
            ) from None
        job = next((one for one in view.jobs if one.id == name), None)
        if job is None:
            known = ", ".join(one.id for one in view.jobs)
            raise FolderError(f"pipeline {pipeline!r} has no job {name!r}; it has {known}")
        if job.manifest is None:
            raise FolderError(
                f"{folder.artifacts} has committed nothing: it is {job.state.name}; submit this "
                "once it has succeeded"
            )
        artifacts = [
            one for one in job.manifest.artifacts if folder.patterns or one.path not in LOG_PATHS
        ]
        root = next(
            (one.key.removesuffix(one.path) for one in artifacts if one.path not in LOG_PATHS), ""
        )
        return root, [
            ListedFile(one.path, one.size_bytes, sha256=one.sha256)
            for one in artifacts
            if f"{root}{one.path}" == one.key  # the logs lie beside the others
        ]
