"""AES-GCM sealing under one primary key, opening under any key of the ring.

`version | 12 bytes nonce | ciphertext | 16 bytes tag`. Version 1 seals the plain bytes, version 0
pads them to 16 first (PKCS#7, RFC 5652 section 6.3). Source: NIST SP 800-38D for GCM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.membership.refusal import DropReason, RefusedError

KEY_BYTES: Final = (16, 24, 32)
NONCE_BYTES: Final = 12
_BLOCK_BYTES: Final = 16
OVERHEAD_BYTES: Final = {0: 45, 1: 29}
"""Bytes that sealing may add, by version."""


class Keyring:
    """The keys of a cluster; the primary seals, all of them open.

    Args:
        keys: 16, 24 or 32 bytes each; the first is the primary. Empty means no encryption.
        verify_incoming: Refuse traffic that no key opens; off, it is taken as plain text, which
            is how a plain cluster is moved to encryption without a stop.
        verify_outgoing: Seal what is sent; off, it goes out plain.
    """

    def __init__(
        self,
        keys: Sequence[bytes] = (),
        *,
        verify_incoming: bool = True,
        verify_outgoing: bool = True,
    ) -> None:
        self._keys: list[bytes] = []
        self._ciphers: dict[bytes, AESGCM] = {}
        self.verify_incoming = verify_incoming
        self.verify_outgoing = verify_outgoing
        for key in keys:
            self.install(key)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys, the primary first."""
        return tuple(self._keys)

    @property
    def primary(self) -> bytes | None:
        """The key that seals, None when there is no encryption."""
        return self._keys[0] if self._keys else None

    @property
    def seals(self) -> bool:
        """Whether outgoing traffic is sealed."""
        return bool(self._keys) and self.verify_outgoing

    @property
    def demands(self) -> bool:
        """Whether incoming traffic has to be sealed."""
        return bool(self._keys) and self.verify_incoming

    def install(self, key: bytes) -> None:
        """Add a key as the last one; a known key stays where it is.

        Raises:
            ValueError: The key's length is none of 16, 24, 32.
        """
        check_key(key)
        if key not in self._ciphers:
            self._keys.append(key)
            self._ciphers[key] = AESGCM(key)

    def use(self, key: bytes) -> None:
        """Make an installed key the primary.

        Raises:
            ValueError: The key is not installed.
        """
        if key not in self._ciphers:
            raise ValueError("requested key is not in the keyring; install it first")
        self._keys.remove(key)
        self._keys.insert(0, key)

    def remove(self, key: bytes) -> None:
        """Drop a key; an unknown one is dropped already.

        Raises:
            ValueError: It is the primary key.
        """
        if self._keys and key == self._keys[0]:
            raise ValueError("removing the primary key is not allowed; use another one first")
        if key in self._ciphers:
            self._keys.remove(key)
            del self._ciphers[key]

    def replace(self, keys: Sequence[bytes]) -> None:
        """Hold these keys and no other, without a moment in which there is none.

        Args:
            keys: At least one; the first is the primary.

        Raises:
            ValueError: There is none, or one has a length that is none of 16, 24, 32.
        """
        if not keys:
            raise ValueError("a ring of no keys would send plain; name at least one")
        for key in keys:
            check_key(key)
        for key in keys:
            self.install(key)
        for key in reversed(keys):
            self.use(key)
        for key in self.keys:
            if key not in keys:
                self.remove(key)

    def seal(self, plain: bytes, nonce: bytes, associated: bytes, version: int = 1) -> bytes:
        """Seal under the primary key.

        Args:
            plain: What to seal.
            nonce: 12 fresh random bytes.
            associated: Authenticated but not sealed: the label, on streams the header before it.
            version: 0 pads to 16 bytes, 1 does not.

        Raises:
            ValueError: There is no key.
        """
        if not self._keys:
            raise ValueError("the keyring is empty; install a key first")
        if version == 0:
            pad = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
            plain += bytes((pad,)) * pad
        sealed = self._ciphers[self._keys[0]].encrypt(nonce, plain, associated)
        return bytes((version,)) + nonce + sealed

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Open with whichever key fits, the primary tried first.

        Raises:
            RefusedError: Unknown version, too short, or no key fits.
        """
        version = sealed[0] if sealed else -1
        if version not in OVERHEAD_BYTES:
            raise RefusedError(DropReason.UNDECRYPTABLE, f"unknown encryption version {version}")
        if len(sealed) < OVERHEAD_BYTES[version]:
            raise RefusedError(DropReason.UNDECRYPTABLE, f"{len(sealed)} bytes are too few")
        nonce = sealed[1 : 1 + NONCE_BYTES]
        body = sealed[1 + NONCE_BYTES :]
        for key in self._keys:
            try:
                plain = self._ciphers[key].decrypt(nonce, body, associated)
            except InvalidTag:
                continue
            return plain if version else _unpad(plain)
        raise RefusedError(DropReason.UNDECRYPTABLE, "no installed key opens it")


def check_key(key: bytes) -> None:
    """Refuse what is no AES key.

    Raises:
        ValueError: its length is none of 16, 24, 32.
    """
    if len(key) not in KEY_BYTES:
        raise ValueError(f"key has {len(key)} bytes; use 16, 24 or 32")


def _unpad(plain: bytes) -> bytes:
    """Take PKCS#7 padding off."""
    pad = plain[-1] if plain else 0
    if not 1 <= pad <= _BLOCK_BYTES or pad > len(plain) or plain[-pad:] != bytes((pad,)) * pad:
        raise RefusedError(DropReason.UNDECRYPTABLE, "padding is wrong")
    return plain[:-pad]
