"""Seals values of secrets under keys that lie in a file of the controller's folder, and opens them again.

Theory. The store is copied, backed up and read by more people than the controller's folder; so it holds values
sealed alone (AES-256-GCM, NIST SP 800-38D, as on the boards), and the keys stand in a file of their own. A seal
binds its value to namespace, name and version: a row that is copied over another one, or over a later version
of itself, opens nothing. A key is named by the first digits of its SHA-256, so a file that was damaged names no
key of a row.

Invariant: a key leaves the file only after no committed row names it; so at every moment, and after a crash at
any moment, each committed row opens.

Example: the file has the keys B and A. B seals. Rows that name A are sealed anew and committed, and then A leaves.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from control.core.rows import SecretRow
from services.runtime.log import fields
from shoal.credentials import write_private

LOG = logging.getLogger(__name__)

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_ID_DIGITS: Final = 16
_FILE_BYTES_MAX: Final = 64 * 1024
_PURPOSE: Final = b"shoal secret"


class VaultError(Exception):
    """Keys that cannot be had, or a value that none of them opens; the message says the remedy."""


class SecretVault:
    """The keys of secrets: hexadecimal, one a line, of which the first seals. The first secret makes the first key.

    Args:
        path: the file.
        random: returns so many random bytes.

    Raises:
        VaultError: the file is there, and cannot be read or holds something else.
    """

    def __init__(self, path: Path, random: Callable[[int], bytes]) -> None:
        self._path = path
        self._random = random
        self._lock = threading.Lock()
        self._keys: Sequence[bytes] = _read(path)

    def ids(self) -> frozenset[str]:
        """Return the ids of all keys that open something."""
        return frozenset(map(key_id, self._keys))

    @property
    def sealing(self) -> str:
        """Id of the key that seals; empty while there is none."""
        return key_id(self._keys[0]) if self._keys else ""

    def seal(self, namespace: str, name: str, version: int, value: bytes) -> tuple[str, bytes]:
        """Seal a value; returns the id of the key, and nonce and sealed value.

        Raises:
            VaultError: there is no key yet, and none can be written.
        """
        if not self._keys:
            self.add_key()
        key, nonce = self._keys[0], self._random(NONCE_BYTES)
        bound = _bound(namespace, name, version)
        return key_id(key), nonce + AESGCM(key).encrypt(nonce, value, bound)

    def open(self, row: SecretRow) -> bytes:
        """Return the value of a row.

        Raises:
            VaultError: its key is not here, or the row is not what was sealed.
        """
        key = next((one for one in self._keys if key_id(one) == row.key_id), None)
        if key is None:
            raise VaultError(
                f"secret {row.name} of namespace {row.namespace} is sealed under key {row.key_id}, which is not "
                f"in {self._path}: bring that file back, or: shoal secret set {row.name}"
            )
        nonce, sealed = row.sealed[:NONCE_BYTES], row.sealed[NONCE_BYTES:]
        bound = _bound(row.namespace, row.name, row.version)
        try:
            return AESGCM(key).decrypt(nonce, sealed, bound)
        except (InvalidTag, ValueError):
            raise VaultError(
                f"secret {row.name} of namespace {row.namespace} does not open: its row of the store was changed; "
                f"shoal secret set {row.name}"
            ) from None

    def add_key(self) -> str:
        """Write a new key before the others, and let it seal from now on; returns its id.

        Raises:
            VaultError: it cannot be written.
        """
        with self._lock:
            new = self._random(KEY_BYTES)
            self._write((new, *self._keys))
            return key_id(new)

    def keep_keys(self, ids: Collection[str]) -> None:
        """Let all keys go but the one that seals and those with these ids.

        Raises:
            VaultError: the file cannot be written.
        """
        with self._lock:
            first, others = self._keys[:1], self._keys[1:]
            kept = (*first, *(key for key in others if key_id(key) in ids))
            if kept != tuple(self._keys):
                self._write(kept)

    def _write(self, keys: Sequence[bytes]) -> None:
        """Have the file hold these keys, and use them; what is not written durably seals nothing."""
        text = "".join(f"{key.hex()}\n" for key in keys)
        try:
            write_private(self._path, text.encode())
        except OSError as error:
            raise VaultError(
                f"the keys of secrets cannot be written to {self._path}: {error.strerror or error}; make room "
                "there, and ask again"
            ) from error
        self._keys = tuple(keys)
        LOG.info("keys of secrets written", extra=fields(path=str(self._path), keys=len(keys)))


def key_id(key: bytes) -> str:
    """Name a key without showing it."""
    return hashlib.sha256(_PURPOSE + key).hexdigest()[:_ID_DIGITS]


def _bound(namespace: str, name: str, version: int) -> bytes:
    """What a seal is bound to; no id has a slash."""
    return _PURPOSE + f"/{namespace}/{name}/{version}".encode()


def _read(path: Path) -> Sequence[bytes]:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise VaultError(
            f"the keys of secrets in {path} cannot be read: {error.strerror or error}; let this user read the file"
        ) from error
    keys: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            key = bytes.fromhex(line.decode("ascii"))
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise VaultError(
                f"line {number} of {path} is no key of secrets, which has {2 * KEY_BYTES} hexadecimal digits: bring "
                "the file back from a backup, or move it away, and set the secrets again"
            )
        keys.append(key)
    return tuple(dict.fromkeys(keys))
