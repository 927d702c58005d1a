"""Where the artifacts of an attempt lie in the archive: the rule for both ends."""

from services.archive.key import check_key
from shoal.names import AttemptRef

LOG_PATHS = ("stdout", "stderr")
"""Paths of the two outputs of a program among its artifacts."""


def artifact_key(ref: AttemptRef, path: str) -> str:
    """Return the key of an artifact: under the prefix that its attempt alone writes.

    Raises:
        InvalidKeyError: when the path leads elsewhere, or no archive takes it.
    """
    key = f"{ref.prefix}/{path}" if path in LOG_PATHS else f"{ref.prefix}/out/{path}"
    return check_key(key)
