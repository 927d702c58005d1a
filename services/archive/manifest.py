"""The committed list of a job's artifacts, and the one way in which it is written."""

import json
from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from json.encoder import encode_basestring as _text
from operator import attrgetter

from shoal.model import Artifact
from shoal.names import AttemptRef, JobRef

VERSION = 1

_path = attrgetter("path")
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def manifest_key(job: JobRef) -> str:
    """Return where the manifest of a job stands in the archive."""
    return f"{job.namespace}/{job.name}/manifest.json"


class ManifestError(ValueError):
    """An object that stands where a manifest should, and is none that this version reads."""


def read_manifest(data: bytes) -> tuple[Artifact, ...]:
    """Return what a manifest names.

    Raises:
        ManifestError: it is not one.
    """
    try:
        entry = json.loads(data)
        if entry["version"] != VERSION:
            raise ManifestError(f"a manifest of version {entry['version']!r}, and not {VERSION}")
        return tuple(
            Artifact(str(one["path"]), int(one["size_bytes"]), str(one["sha256"]), str(one["key"]))
            for one in entry["artifacts"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"no manifest that this version reads: {error}") from error


def manifest_text(
    attempt: AttemptRef, artifacts: Collection[Artifact], commit_time: datetime
) -> str:
    """Return what one attempt stored and the controller committed, once for each job.

    It is canonical JSON: artifacts by path, sorted names, no spaces, one newline at the end, so that
    equal manifests have equal bytes.

    Raises:
        ValueError: `commit_time` has no time zone.
    """
    if commit_time.tzinfo is None:
        raise ValueError(f"commit_time {commit_time} has no time zone; use UTC")
    named = sorted(artifacts, key=_path) if artifacts else ()
    if not named:  # as most of many short jobs: written as the encoder writes it, which takes six times as long
        return (
            f'{{"artifacts":[],"attempt":{_text(attempt.name)},"commit_time":"{commit_time.isoformat()}",'
            f'"epoch":{attempt.epoch},"namespace":{_text(attempt.namespace)},"version":{VERSION}}}\n'
        )
    entry: dict[str, object] = {
        "version": VERSION,
        "namespace": attempt.namespace,
        "attempt": attempt.name,
        "epoch": attempt.epoch,
        "commit_time": commit_time.isoformat(),
        "artifacts": [asdict(one) for one in named],
    }
    return f"{_JSON.encode(entry)}\n"
