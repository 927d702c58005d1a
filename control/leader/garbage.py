"""Which objects of the archive nothing names any more: decided here, removed elsewhere.

Rule. An object goes only if it is of a kind that is known here, is older than the time of that kind, and
nothing names it: no committed manifest, no pipeline that has not ended, no dead letter, no bundle of a
pipeline that is remembered. What is not understood stays.

Invariant. No object that a readable manifest names is ever removed. That holds at any moment because of
the order: objects are listed first, then the store is read in one snapshot, then the manifests. An object
that is committed after the snapshot belongs to a pipeline that had not ended in it, and those are spared
whole; one that was committed before has its manifest in the archive or in the outbox of the snapshot.
Where committed results have an end (`--keep-results`), the manifest goes first, and its objects with a
later pass, as those of any attempt that did not commit.

Example: attempt 1 of a job failed in March with its log archived, attempt 2 succeeded. In May the log goes,
and what the manifest names stays for ever.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from control.core.rows import KeptNames
from services.archive.object_store import ListedObject, UnfinishedUpload

DAY_SECONDS: Final = 86_400.0
GRACE_SECONDS: Final = DAY_SECONDS
"""What is younger is never looked at: it may be named by what is on its way."""
STALE_UPLOAD_SECONDS: Final = 7 * DAY_SECONDS

_ID: Final = "[a-z][a-z0-9-]{0,62}"
_JOB: Final = re.compile(rf"(({_ID})/pipelines/({_ID})/jobs/({_ID}))/(.+)", re.DOTALL)
_CONTENT: Final = re.compile(r"(bundles|listings)/sha256/([0-9a-f]{64})(\.pieces)?")


@dataclass(frozen=True, slots=True)
class GarbageRules:
    """For how many seconds what nothing names is kept; `results` is for committed ones, None for ever."""

    attempts: float = 30 * DAY_SECONDS
    bundles: float = 30 * DAY_SECONDS
    results: float | None = None


@dataclass(slots=True)
class Garbage:
    """What may go, as far as it is known; manifests are still to be read.

    Attributes:
        content: bundles, lists of their pieces, and listings.
        attempts: objects of attempts, by the key of their job's manifest.
        manifests: manifests whose results have come to their end.
        uploads: uploads in parts that no attempt goes on with.
    """

    content: list[ListedObject] = field(default_factory=list[ListedObject])
    attempts: dict[str, list[ListedObject]] = field(default_factory=dict[str, list[ListedObject]])
    manifests: list[ListedObject] = field(default_factory=list[ListedObject])
    uploads: list[UnfinishedUpload] = field(default_factory=list[UnfinishedUpload])


@dataclass(frozen=True, slots=True)
class GarbageRule:
    """Decides; `now` is Unix time in seconds, by the archive's clock or one near it."""

    rules: GarbageRules
    now: float

    def is_old(self, one: ListedObject) -> bool:
        """Whether an object may be garbage, before it is known what the store names: see `among`."""
        age = self.now - one.modify_time
        if age < GRACE_SECONDS:
            return False
        if _CONTENT.fullmatch(one.key):
            return age >= self.rules.bundles
        job = _JOB.fullmatch(one.key)
        if job is None:
            return False
        if job[5] == "manifest.json":
            return self.rules.results is not None and age >= self.rules.results
        return job[5].startswith("attempts/") and age >= self.rules.attempts

    def among(
        self,
        old: Collection[ListedObject],
        uploads: Collection[UnfinishedUpload],
        kept: KeptNames,
    ) -> Garbage:
        """Return what may go of what is old; `kept` was read after they were listed."""
        found = Garbage()
        content: Mapping[str, frozenset[str]] = {
            "bundles": kept.bundles,
            "listings": kept.listings,
        }
        for one in old:
            if (named := _CONTENT.fullmatch(one.key)) is not None:
                if named[2] not in content[named[1]]:
                    found.content.append(one)
                continue
            job = _JOB.fullmatch(one.key)
            if job is None or (job[2], job[3]) in kept.spared:
                continue
            manifest = f"{job[1]}/manifest.json"
            if manifest in kept.awaited:
                continue
            if one.key == manifest:
                found.manifests.append(one)
            else:
                found.attempts.setdefault(manifest, []).append(one)
        found.uploads += [one for one in uploads if self._is_stale(one, kept)]
        return found

    def _is_stale(self, upload: UnfinishedUpload, kept: KeptNames) -> bool:
        if self.now - upload.begin_time < STALE_UPLOAD_SECONDS:
            return False
        job = _JOB.fullmatch(upload.key)
        return job is None or (job[2], job[3]) not in kept.spared
