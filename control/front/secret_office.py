"""Where secrets are set, listed, removed and given to nodes: the keys and what is recorded meet here.

Rule: a value is sealed first and recorded second, and leaves in an assignment alone, on a session whose agent
has proved its identity. It is in no log, error, event or view.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from control.core.answers import Refusal, RefusalCode
from control.core.call_note import CallNote
from control.core.rows import SecretRow
from control.front.control_plane import ControlPlane
from control.front.secret_vault import SecretVault, VaultError
from services.runtime.log import CountedLog
from shoal.secret import is_text, no_secrets, value_problem
from shoal.session.assignment import Assignment

INSECURE: Final = (
    "this controller runs with --insecure, and secrets travel over TLS alone: start it without that, and let "
    "its nodes join"
)
"""Why a cluster without identity gives no secrets."""

_RESEALED_TOGETHER: Final = 100


class SecretOfficeError(Exception):
    """What is refused of secrets.

    Attributes:
        refusal: why.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class SecretsResealed:
    """What a new key did: the new key's id, how many secrets it seals, how many no key opens."""

    key_id: str
    secrets: int
    unreadable: int


class SecretOffice:
    """Keeps secrets.

    Args:
        plane: records them.
        vault: seals and opens values.
        wall: the time now.
        log: is told of values that cannot be given.
        insecure: whether the controller runs with --insecure, so that no secret may travel.
    """

    def __init__(
        self,
        plane: ControlPlane,
        vault: SecretVault,
        *,
        wall: Callable[[], datetime],
        log: CountedLog,
        insecure: bool,
    ) -> None:
        self._plane = plane
        self._vault = vault
        self._wall = wall
        self._log = log
        self._insecure = insecure
        self._changing = asyncio.Lock()

    async def set(
        self, namespace: str, name: str, value: bytes, note: CallNote | None
    ) -> SecretRow:
        """Give a secret a value; returns what is kept once it is recorded.

        Raises:
            SecretOfficeError: it cannot be kept.
            ControlError: it could not be recorded.
        """
        if self._insecure:
            raise _refused(RefusalCode.FAILED_PRECONDITION, "INSECURE", INSECURE)
        if problem := value_problem(value):
            raise _refused(
                RefusalCode.INVALID_ARGUMENT,
                "INVALID_SECRET",
                f"the value of secret {name} {problem}",
            )
        async with self._changing:
            known = self._plane.secrets.get(namespace, name)
            version = 1 if known is None else known.version + 1
            key_id, sealed = await self._sealed(namespace, name, version, value)
            now = self._wall()
            row = SecretRow(
                namespace,
                name,
                version,
                key_id,
                sealed,
                is_text(value),
                now if known is None else known.create_time,
                now,
                "" if note is None else note.described,
            )
            _raise(await self._plane.set_secret(row, note))
            return row

    def list(self, namespace: str) -> Sequence[tuple[SecretRow, bool]]:
        """Return the secrets of a namespace, by name, each with whether this controller can open it.

        Raises:
            ControlError: there is no machine for now.
        """
        secrets = self._plane.secrets
        return [(row, secrets.readable(row)) for row in secrets.of(namespace)]

    async def remove(self, namespace: str, name: str, note: CallNote | None) -> None:
        """Remove a secret.

        Raises:
            SecretOfficeError: there is none.
            ControlError: it could not be recorded.
        """
        _raise(await self._plane.remove_secret(namespace, name, note))

    async def rotate(self) -> SecretsResealed:
        """Seal all values under a new key, and let the others go once nothing is sealed under them.

        Raises:
            SecretOfficeError: a key cannot be written.
            ControlError: it could not be recorded; the keys before stay.
        """
        async with self._changing:
            try:
                new = await asyncio.to_thread(self._vault.add_key)
                rows = [row for row in self._plane.secrets.all() if row.key_id != new]
                for at in range(0, len(rows), _RESEALED_TOGETHER):
                    part = rows[at : at + _RESEALED_TOGETHER]
                    resealed = await asyncio.to_thread(self._resealed, part)
                    await self._plane.reseal_secrets(resealed)
                named = [row.key_id for row in self._plane.secrets.all()]
                await asyncio.to_thread(self._vault.keep_keys, frozenset(named))
            except VaultError as error:
                raise _unwritten(error) from error
            return SecretsResealed(new, named.count(new), len(named) - named.count(new))

    def values_of(self, assignment: Assignment) -> Mapping[str, bytes]:
        """Return the values of the secrets that the job of an assignment names, by their names.

        One that was removed meanwhile, or does not open, is left out: the agent that has none of it yet fails
        the attempt.

        Raises:
            ControlError: there is no machine for now.
        """
        uses = assignment.job.secrets
        if not uses or self._insecure:
            return no_secrets()
        found: dict[str, bytes] = {}
        for name in sorted({use.name for use in uses}):
            row = self._plane.secrets.get(assignment.ref.namespace, name)
            try:
                if row is not None:
                    found[name] = self._vault.open(row)
            except VaultError as error:
                self._log.warn("a secret is not given", name=assignment.ref.name, why=error)
        return found

    async def _sealed(
        self, namespace: str, name: str, version: int, value: bytes
    ) -> tuple[str, bytes]:
        try:
            return await asyncio.to_thread(self._vault.seal, namespace, name, version, value)
        except VaultError as error:
            raise _unwritten(error) from error

    def _resealed(self, rows: Sequence[SecretRow]) -> tuple[SecretRow, ...]:
        """Seal the values of rows under the key that seals now; what does not open is left out."""
        found: list[SecretRow] = []
        for row in rows:
            try:
                value = self._vault.open(row)
            except VaultError as error:
                self._log.warn("a secret stays under its key", name=row.name, why=error)
                continue
            key_id, sealed = self._vault.seal(row.namespace, row.name, row.version, value)
            found.append(replace(row, key_id=key_id, sealed=sealed))
        return tuple(found)


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise SecretOfficeError(refusal)


def _refused(code: RefusalCode, reason: str, message: str) -> SecretOfficeError:
    return SecretOfficeError(Refusal(code, reason, message))


def _unwritten(error: VaultError) -> SecretOfficeError:
    return _refused(RefusalCode.UNAVAILABLE, "KEYS_NOT_WRITTEN", str(error))
