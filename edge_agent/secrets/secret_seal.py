"""Secrets at rest on a board: sealed under a key that this board alone has.

**Rule.** What the journal holds of a secret opens with the key file of this board only, and only as the secrets
of the attempt for which it was sealed: AES-256-GCM (NIST SP 800-38D) with a nonce that is drawn each time, and the
attempt's name as additional data. So a copy of the journal, or of a row of it, says nothing elsewhere.

**Why a key of its own.** The key of the certificate is renewed, and the board has to open what it sealed before.
The file is made once, with the first secret. Root of the board, or a thief of its disk, has both, as with every
board that starts without a person's help; docs/security.md says so.
"""

import base64
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.runtime.log import fields
from shoal.credentials import write_private

LOG = logging.getLogger(__name__)

NAME: Final = "secrets.key"
"""The key file in the state folder."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FIRST_FORM: Final = b"\x01"


class SealError(Exception):
    """What was sealed cannot be opened; the message says why and what follows."""


class SecretSeal:
    """Seals and opens the secrets of attempts; every method reads files, and one thread calls at a time.

    Args:
        path: the key file; made with the first secret, its user's alone.
        random: draws bytes.
    """

    def __init__(self, path: Path, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path = path
        self._random = random
        self._cipher: AESGCM | None = None

    def close(self, secrets: Mapping[str, bytes], owner: str) -> bytes:
        """Return secrets as they may lie on a disk; nothing for none.

        Args:
            secrets: values by the names of secrets.
            owner: whose they are.

        Raises:
            OSError: the key cannot be read, or cannot be made.
        """
        if not secrets:
            return b""
        values = {name: base64.b64encode(value).decode() for name, value in secrets.items()}
        nonce = self._random(_NONCE_BYTES)
        cipher = self._cipher or self._read() or self._make()
        return _FIRST_FORM + nonce + cipher.encrypt(nonce, json.dumps(values).encode(), _of(owner))

    def open(self, sealed: bytes, owner: str) -> Mapping[str, bytes]:
        """Return the secrets that were sealed for an owner; none for nothing.

        Raises:
            SealError: they were sealed for another, by another board, in a form that is not known, or the key is
                gone.
            OSError: the key cannot be read.
        """
        if not sealed:
            return {}
        cipher = self._cipher or self._read()
        if cipher is None:
            raise SealError(
                f"the key {self._path} is not there any more: put it back, or run the job again"
            )
        form, nonce, rest = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if form != _FIRST_FORM:
            raise SealError(f"they were sealed by a later version, in the form {form.hex()}")
        try:
            values = json.loads(cipher.decrypt(nonce, rest, _of(owner)))
        except (InvalidTag, ValueError):
            raise SealError(
                f"they were not sealed for {owner} with the key {self._path}: put the right key back, "
                "or run the job again"
            ) from None
        return {name: base64.b64decode(value) for name, value in values.items()}

    def _read(self) -> AESGCM | None:
        """Read the key; None where there is none, and a damaged one is put aside."""
        try:
            key = self._path.read_bytes()
        except FileNotFoundError:
            return None
        if len(key) != _KEY_BYTES:
            aside = self._path.with_suffix(".damaged")
            self._path.rename(aside)
            LOG.error("the key of secrets is damaged", extra=fields(bytes=len(key), moved_to=aside))
            return None
        self._cipher = AESGCM(key)
        return self._cipher

    def _make(self) -> AESGCM:
        key = self._random(_KEY_BYTES)
        write_private(self._path, key)
        self._cipher = AESGCM(key)
        return self._cipher


def _of(owner: str) -> bytes:
    return b"shoal secrets of " + owner.encode()
