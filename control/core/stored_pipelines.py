"""Stored pipelines: specifications that a namespace keeps under a name, with versions.

What a version holds is in the store alone; here is what decides: which names there are, and how far they have come.

Rule. A version never changes. An update says which version it is of, and is taken if that is the newest one; so of two
people that update at once, the second one is told, and loses no work in silence. What is asked for again, as
its answer was lost, is answered with what the first call made: the newest version has the same content.

Invariant: a name and a number never mean two contents. A name that was deleted goes on with the next number, for as
long as there is room to remember it.

Bound: `StoredLimits`.

Example: ann and bob read version 3. Ann's update makes version 4. Bob's, of version 3 too, is refused with both
numbers; he reads version 4, and updates that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from control.core import events
from control.core.answers import Refusal, RefusalCode
from control.core.effects import VersionStored
from control.core.machine_part import MachinePart
from control.core.rows import (
    Loaded,
    StoredDeleted,
    StoredHead,
    StoredKey,
    StoredVersionForgotten,
)


@dataclass(eq=False)
class StoredPipelines(MachinePart):
    """All names that are stored, by namespace and name."""

    _heads: dict[StoredKey, StoredHead] = field(
        default_factory=dict[StoredKey, StoredHead], init=False
    )
    _deleted: dict[StoredKey, None] = field(default_factory=dict[StoredKey, None], init=False)
    _names: Counter[str] = field(default_factory=Counter[str], init=False)
    _bytes: Counter[str] = field(default_factory=Counter[str], init=False)

    def load(self, loaded: Loaded) -> None:
        """Take what was recorded."""
        for head in loaded.stored:
            self._keep(head)

    # ---- questions

    def get(self, namespace: str, name: str) -> StoredHead | None:
        """How far a name has come; None if there is none."""
        head = self._heads.get((namespace, name))
        return None if head is None or head.deleted else head

    def page(self, namespace: str, after: str, limit: int) -> Sequence[StoredHead]:
        """Names of a namespace behind `after`, in their order."""
        names = sorted(
            name
            for (own, name), head in self._heads.items()
            if own == namespace and name > after and not head.deleted
        )
        return [self._heads[namespace, name] for name in names[:limit]]

    # ---- events

    def store(self, event: events.StorePipeline) -> VersionStored | Refusal:
        """Keep a version: the first one of a name, or the one behind the version that it is an update of."""
        row = event.row
        key = (row.namespace, row.name)
        head = self._heads.get(key, StoredHead(*key))
        refused = self._not_first(event, head) if event.update_of == 0 else _not_next(event, head)
        if isinstance(refused, VersionStored | Refusal):
            return refused
        before = head.sizes[-(self._config.stored.versions - 1) :]
        after = replace(
            head,
            newest=head.newest + 1,
            sizes=(*before, len(row.content)),
            digest=row.digest,
        )
        if full := self._full(head, after):
            return Refusal(RefusalCode.RESOURCE_EXHAUSTED, "TOO_MANY", full)
        for version in range(head.oldest, after.oldest):
            self._change.stored(StoredVersionForgotten(*key, version))
        if head.deleted and head.newest:  # what remembered how far the name had come
            self._change.stored(StoredDeleted(*key, 0))
        self._keep(after)
        self._change.stored(
            replace(row, version=after.newest, create_time=self._situation.wall_time)
        )
        return VersionStored(after.newest, repeated=False)

    def delete(self, event: events.DeleteStored) -> Refusal | None:
        """Forget all versions of a name; pipelines that run are as they were."""
        key = (event.namespace, event.name)
        head = self.get(*key)
        if head is None:
            return unknown(*key)
        if event.version and event.version != head.newest:
            return _changed(head, event.version, "the deletion")
        for version in range(head.oldest, head.newest + 1):
            self._change.stored(StoredVersionForgotten(*key, version))
        self._change.stored(StoredDeleted(*key, head.newest))
        self._keep(replace(head, sizes=(), digest=""))
        self._trim()
        return None

    def _not_first(
        self, event: events.StorePipeline, head: StoredHead
    ) -> VersionStored | Refusal | None:
        if head.deleted:
            return None
        if head.digest == event.row.digest:
            return VersionStored(head.newest, repeated=True)
        return Refusal(
            RefusalCode.ALREADY_EXISTS,
            "STORED_PIPELINE_EXISTS",
            f"stored pipeline {head.name} of namespace {head.namespace} is there, with version {head.newest}: update "
            f"it (shoal stored update {head.name}), or choose another name",
            {"name": head.name, "version": str(head.newest)},
        )

    def _full(self, before: StoredHead, after: StoredHead) -> str:
        space, most = after.namespace, self._config.stored
        if before.deleted and self._names[space] >= most.names:
            return f"namespace {space} has {most.names} stored pipelines, which is the most: shoal stored rm some"
        if self._bytes[space] - sum(before.sizes) + sum(after.sizes) > most.size_bytes:
            return (
                f"the stored pipelines of namespace {space} would have more than {most.size_bytes} bytes, all versions "
                "counted: shoal stored rm some, or keep what is long in bundles"
            )
        if before.deleted and len(self._heads) - len(self._deleted) >= most.remembered:
            return (
                f"there are {most.remembered} stored pipelines in all namespaces, which is the most: shoal stored rm "
                "some"
            )
        return ""

    def _keep(self, head: StoredHead) -> None:
        known = self._heads.get(head.key)
        if known is not None:
            self._names[known.namespace] -= not known.deleted
            self._bytes[known.namespace] -= sum(known.sizes)
        self._names[head.namespace] += not head.deleted
        self._bytes[head.namespace] += sum(head.sizes)
        self._heads[head.key] = head
        self._deleted.pop(head.key, None)
        if head.deleted:
            self._deleted[head.key] = None

    def _trim(self) -> None:
        while len(self._heads) > self._config.stored.remembered and self._deleted:
            key = next(iter(self._deleted))
            del self._deleted[key]
            del self._heads[key]
            self._change.stored(StoredDeleted(*key, 0))


def unknown(namespace: str, name: str) -> Refusal:
    """Refuse what is asked of a name that is not stored."""
    return Refusal(
        RefusalCode.NOT_FOUND,
        "UNKNOWN_STORED_PIPELINE",
        f"there is no stored pipeline {name!r} in namespace {namespace}: see shoal stored list",
        {"name": name},
    )


def _not_next(event: events.StorePipeline, head: StoredHead) -> VersionStored | Refusal | None:
    if head.deleted:
        return unknown(head.namespace, head.name)
    same = head.digest == event.row.digest
    if same and event.update_of in {head.newest, head.newest - 1}:
        return VersionStored(head.newest, repeated=True)
    if event.update_of != head.newest:
        return _changed(head, event.update_of, "the update")
    return None


def _changed(head: StoredHead, asked: int, what: str) -> Refusal:
    return Refusal(
        RefusalCode.ABORTED,
        "VERSION_CHANGED",
        f"stored pipeline {head.name} of namespace {head.namespace} has version {head.newest}, and {what} is of "
        f"version {asked}: look at what it is now (shoal stored show {head.name}), and ask again with that version",
        {"name": head.name, "expected_version": str(asked), "version": str(head.newest)},
    )
