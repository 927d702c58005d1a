"""Copies of results for readers that know them under other names than the archive's.

Rule. An artifact below `results/` or `Results/` is copied without that folder, any other that a pattern
named with its whole path, and the logs of a program are not. Example: `Results/plots/a.png` of the task
`ada/Classification/task7` becomes `ada/Classification/task7/Results/plots/a.png`. Of two artifacts of
one name the later path in the order of the manifest stays.
"""

from collections.abc import Iterable, Mapping

from services.archive.artifact_key import LOG_PATHS
from services.archive.key import check_key
from services.archive.object_store import ObjectStore
from shoal.model import Artifact

_FOLDERS = ("results/", "Results/")


def copies(artifacts: Iterable[Artifact], prefix: str) -> Mapping[str, Artifact]:
    """Return which artifact is copied to which key."""
    found: dict[str, Artifact] = {}
    for artifact in sorted(artifacts, key=lambda one: one.path):
        if artifact.path in LOG_PATHS:
            continue
        path = artifact.path
        for folder in _FOLDERS:
            if path.startswith(folder):
                path = path.removeprefix(folder)
                break
        found[f"{prefix}/{path}"] = artifact
    return found


async def copy_artifact(
    artifact: Artifact, archive: ObjectStore, target: ObjectStore, to: str
) -> None:
    """Copy one artifact; within one store its server does it, and else its hash is checked on the way.

    Raises:
        InvalidKeyError: no store takes the key.
        ObjectMissingError: it is not in the archive.
        ArchiveError: one of the stores does not answer, or what was read is not the artifact.
    """
    check_key(to)
    if target is archive:
        await archive.copy(artifact.key, to)
    else:
        await target.put_stream(to, archive.get_stream(artifact.key), sha256=artifact.sha256)
