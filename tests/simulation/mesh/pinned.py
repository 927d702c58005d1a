"""What was found for the folder input of simulated jobs: a list and files that lie in the archive."""

from collections.abc import Mapping

from control.front.object_key import listing_key
from shoal.folder_listing import FolderListing, ListedFile, listing_digest
from shoal.spec import FolderInput, Pipeline
from tests.simulation.mesh.archive import MemoryArchive

FOLDER = FolderInput("given", artifacts="before-1/main")
LISTING = FolderListing(
    "default/pipelines/before-1/", tuple(ListedFile(f"file-{n}", 1) for n in range(3))
)
DIGEST = listing_digest(LISTING.encode())


def stock(archive: MemoryArchive) -> None:
    """Put the list and its files into an archive, where they were before the history begins."""
    archive.objects[listing_key(DIGEST)] = LISTING.encode()
    archive.times[listing_key(DIGEST)] = 0.0
    for file in LISTING.files:
        archive.objects[f"{LISTING.root}{file.key}"] = b"x"
        archive.times[f"{LISTING.root}{file.key}"] = 0.0


def listings(spec: Pipeline) -> Mapping[str, str]:
    """What a front pins for a pipeline."""
    return {f"{job.name}/{folder.name}": DIGEST for job in spec.jobs for folder in job.folders}
