"""Secrets of namespaces: which there are, and whether a job can be given those that it names.

Values are sealed before they come here (`control.front.secret_vault`), and stay so: neither this machine nor
the store can read one.

Rule: a job is placed only while all that it names can be given to it whole. A submission that names what cannot
be given is refused, with the remedy; what is taken away later lets the jobs that are still to begin wait. An
attempt that has begun keeps what it got.

Invariants:
1. A value is written with the version after the one that it replaces, which its seal says too; so of two calls
   that set a secret at once, the one that comes second is told so, and no value is lost in silence.
2. Nothing of a value is in a row that is shown, an event or a sentence; its length decides, and is not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from control.core import events
from control.core.answers import Refusal, RefusalCode, Submission
from control.core.machine_part import MachinePart
from control.core.rows import Loaded, SecretForgotten, SecretRow
from shoal.secret import (
    JOB_SECRETS_BYTES_MAX,
    NAMESPACE_SECRETS_MAX,
    SecretForm,
    SecretUse,
)

SECRETS_MAX: Final = 5_000
"""Most secrets of all namespaces: they are in memory, sealed."""

SecretKey = tuple[str, str]
"""A namespace and the name of a secret."""


@dataclass(eq=False)
class JobSecrets(MachinePart):
    """All secrets, sealed, by namespace and name."""

    _rows: dict[SecretKey, SecretRow] = field(
        default_factory=dict[SecretKey, SecretRow], init=False
    )
    _unreadable: set[SecretKey] = field(default_factory=set[SecretKey], init=False)
    """Those that are sealed under a key that this controller does not have."""

    def load(self, loaded: Loaded) -> None:
        """Take what was recorded."""
        known = self._config.secret_keys()
        for row in loaded.secrets:
            self._rows[row.key] = row
            if row.key_id not in known:
                self._unreadable.add(row.key)

    # ---- questions

    def get(self, namespace: str, name: str) -> SecretRow | None:
        """The secret of that name; None if there is none."""
        return self._rows.get((namespace, name))

    def all(self) -> Sequence[SecretRow]:
        """All of them, by namespace and name."""
        return [self._rows[key] for key in sorted(self._rows)]

    def of(self, namespace: str) -> Sequence[SecretRow]:
        """Those of a namespace, by name."""
        return [row for row in self.all() if row.namespace == namespace]

    def readable(self, row: SecretRow) -> bool:
        """Whether this controller has the key that it is sealed under."""
        return row.key not in self._unreadable

    def lack(self, namespace: str, uses: Sequence[SecretUse]) -> str:
        """Say why a job cannot be given what it names; empty if it can."""
        return next(self._lacks(namespace, uses), "")

    def _lacks(self, namespace: str, uses: Sequence[SecretUse]) -> Iterator[str]:
        if uses and self._config.secrets_refused:
            yield self._config.secrets_refused
            return
        size = 0
        for use in uses:
            row = self._rows.get((namespace, use.name))
            if row is None:
                yield (
                    f"secret {use.name} is not set in namespace {namespace}: "
                    f"shoal secret set {use.name}"
                )
                continue
            if row.key in self._unreadable:
                yield (
                    f"secret {use.name} is sealed under key {row.key_id}, which this controller does not have: "
                    f"bring back the file of its keys, or: shoal secret set {use.name}"
                )
            if use.form is SecretForm.VARIABLE and not row.text:
                yield (
                    f"secret {use.name} is no text, which the variable {use.variable} would have to hold: say "
                    f"{use.variable}: {{name: {use.name}, as: file}}"
                )
            size += row.size_bytes
        if size > JOB_SECRETS_BYTES_MAX:
            yield (
                f"the secrets of the job are longer than {JOB_SECRETS_BYTES_MAX} bytes together: keep what is long "
                "elsewhere, and set the key to it"
            )

    def refusal(self, submission: Submission) -> Refusal | None:
        """Return why a submission cannot be taken, with the path of each job that lacks a secret; None if it can."""
        lacks = {
            f"jobs.{job.name}.secrets": lack
            for job in submission.spec.jobs
            if (lack := self.lack(submission.namespace, job.secrets))
        }
        if not lacks:
            return None
        path, why = next(iter(lacks.items()))
        insecure = bool(self._config.secrets_refused)
        return Refusal(
            RefusalCode.FAILED_PRECONDITION,
            "INSECURE" if insecure else "MISSING_SECRET",
            f"pipeline {submission.spec.name!r} cannot run: {path}: {why}",
            lacks,
        )

    # ---- events

    def set(self, event: events.SetSecret) -> Refusal | None:
        """Keep a value in the place of the one before."""
        row = event.secret
        known = self._rows.get(row.key)
        if row.version != (1 if known is None else known.version + 1):
            return Refusal(
                RefusalCode.ABORTED,
                "SET_TWICE",
                f"secret {row.name} of namespace {row.namespace} was set by another call at the same time: look at "
                "shoal secret list, and set it again",
            )
        if known is None and (full := self._full(row.namespace)):
            return Refusal(RefusalCode.RESOURCE_EXHAUSTED, "TOO_MANY", full)
        self._keep(row)
        self._situation.room_grew = True  # jobs may wait for it
        return None

    def remove(self, event: events.RemoveSecret) -> Refusal | None:
        """Forget a secret; attempts that have it keep it."""
        key = (event.namespace, event.name)
        if self._rows.pop(key, None) is None:
            return Refusal(
                RefusalCode.NOT_FOUND,
                "UNKNOWN_SECRET",
                f"there is no secret {event.name!r} in namespace {event.namespace}: see shoal secret list",
            )
        self._unreadable.discard(key)
        self._change.secret(SecretForgotten(*key))
        return None

    def reseal(self, event: events.ResealSecrets) -> None:
        """Take the same values under another key; what was set or removed meanwhile stays as it is."""
        for row in event.secrets:
            known = self._rows.get(row.key)
            if known is not None and known.version == row.version:
                self._keep(row)

    def _keep(self, row: SecretRow) -> None:
        self._rows[row.key] = row
        self._unreadable.discard(row.key)
        self._change.secret(row)

    def _full(self, namespace: str) -> str:
        mine = _count(row for row in self._rows.values() if row.namespace == namespace)
        if mine >= NAMESPACE_SECRETS_MAX:
            return (
                f"namespace {namespace} has {mine} secrets, which is the most: shoal secret rm some"
            )
        if len(self._rows) >= SECRETS_MAX:
            return f"there are {SECRETS_MAX} secrets in all namespaces, which is the most: shoal secret rm some"
        return ""


def _count(rows: Iterable[SecretRow]) -> int:
    return sum(1 for _ in rows)
