"""The committed list of a job's artifacts, and the one way in which it is written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from shoal.model import Artifact
from shoal.names import AttemptRef, JobRef, parse_attempt

VERSION = 1


class ManifestError(ValueError):
    """Bytes that are not a manifest."""


@dataclass(frozen=True, slots=True)
class ArchivedManifest:
    """What one attempt stored and the controller committed, once for each job.

    The artifacts are kept by path, so that equal manifests have equal bytes.
    """

    attempt: AttemptRef
    artifacts: tuple[Artifact, ...]
    commit_time: datetime

    def __post_init__(self) -> None:
        if self.commit_time.tzinfo is None:
            raise ValueError(f"commit_time {self.commit_time} has no time zone; use UTC")
        ordered = tuple(sorted(self.artifacts, key=lambda artifact: artifact.path))
        object.__setattr__(self, "artifacts", ordered)

    @property
    def key(self) -> str:
        """Key of the manifest itself in the archive."""
        return manifest_key(self.attempt.job_ref)


def manifest_key(job: JobRef) -> str:
    """Return where the manifest of a job stands in the archive."""
    return f"{job.namespace}/{job.name}/manifest.json"


def encode(manifest: ArchivedManifest) -> bytes:
    """Return the canonical JSON: sorted names, no spaces, UTF-8, one newline at the end."""
    entry = {
        "version": VERSION,
        "namespace": manifest.attempt.namespace,
        "attempt": manifest.attempt.name,
        "epoch": manifest.attempt.epoch,
        "commit_time": manifest.commit_time.isoformat(),
        "artifacts": [
            {
                "path": artifact.path,
                "size_bytes": artifact.size_bytes,
                "sha256": artifact.sha256,
                "key": artifact.key,
            }
            for artifact in manifest.artifacts
        ],
    }
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{text}\n".encode()


def decode(data: bytes) -> ArchivedManifest:
    """Read what `encode` wrote.

    Raises:
        ManifestError: when it is something else.
    """
    try:
        entry = _mapping(json.loads(data))
        if entry["version"] != VERSION:
            raise ManifestError(
                f"manifest version {entry['version']!r} is not known; this program knows {VERSION}"
            )
        attempt = parse_attempt(
            _text(entry["attempt"]), _text(entry["namespace"]), _number(entry["epoch"])
        )
        artifacts = tuple(_artifact(found) for found in _sequence(entry["artifacts"]))
        return ArchivedManifest(
            attempt, artifacts, datetime.fromisoformat(_text(entry["commit_time"]))
        )
    except ManifestError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestError(f"these {len(data)} bytes are not a manifest: {error!r}") from error


def _artifact(found: object) -> Artifact:
    entry = _mapping(found)
    return Artifact(
        path=_text(entry["path"]),
        size_bytes=_number(entry["size_bytes"]),
        sha256=_text(entry["sha256"]),
        key=_text(entry["key"]),
    )


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return cast("dict[str, object]", value)


def _sequence(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not an array")
    return cast("list[object]", value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value
