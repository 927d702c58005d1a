"""The committed list of a job's artifacts, and the one way in which it is written."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from shoal.model import Artifact
from shoal.names import AttemptRef, JobRef

VERSION = 1


def manifest_key(job: JobRef) -> str:
    """Return where the manifest of a job stands in the archive."""
    return f"{job.namespace}/{job.name}/manifest.json"


def manifest_text(attempt: AttemptRef, artifacts: Iterable[Artifact], commit_time: datetime) -> str:
    """Return what one attempt stored and the controller committed, once for each job.

    It is canonical JSON: artifacts by path, sorted names, no spaces, one newline at the end, so that
    equal manifests have equal bytes.

    Raises:
        ValueError: `commit_time` has no time zone.
    """
    if commit_time.tzinfo is None:
        raise ValueError(f"commit_time {commit_time} has no time zone; use UTC")
    entry = {
        "version": VERSION,
        "namespace": attempt.namespace,
        "attempt": attempt.name,
        "epoch": attempt.epoch,
        "commit_time": commit_time.isoformat(),
        "artifacts": [asdict(one) for one in sorted(artifacts, key=lambda one: one.path)],
    }
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{text}\n"
