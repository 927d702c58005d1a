"""Where things lie in the archive (docs/architecture.md, sections 5 and 6)."""

from collections.abc import Sequence

from services.archive.artifact_key import artifact_key
from services.archive.key import InvalidKeyError
from shoal.model import Artifact
from shoal.names import AttemptRef


def bundle_key(digest: str) -> str:
    """Return the key of a bundle."""
    return f"bundles/sha256/{digest}"


def pieces_key(digest: str) -> str:
    """Return the key of the list of pieces of a bundle."""
    return f"{bundle_key(digest)}.pieces"


def listing_key(digest: str) -> str:
    """Return the key of what was found for a folder input."""
    return f"listings/sha256/{digest}"


def wrong_key(ref: AttemptRef, artifacts: Sequence[Artifact]) -> str:
    """Say which artifact does not lie where its attempt may write; empty when all do."""
    for artifact in artifacts:
        try:
            expected = artifact_key(ref, artifact.path)
        except InvalidKeyError as error:
            return str(error)
        if artifact.key != expected:
            return f"artifact {artifact.path!r} is said to lie under {artifact.key!r}"
    return ""
