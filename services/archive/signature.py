"""Addresses that carry their own permission: a path, an expiry and an HMAC over both."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

PATH_PREFIX = "/objects/"


class SignatureRefusedError(Exception):
    """An address that was not made here, was changed since, or has expired."""


@dataclass(frozen=True, slots=True)
class SignedPart:
    """Where a part belongs: the upload, its number from 1, and its first byte in the object."""

    upload_id: str
    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class SignedPut:
    """What one PUT may store: size in bytes and SHA-256 in hex, of an object or of a part of one."""

    size_bytes: int
    sha256: str
    part: SignedPart | None = None


class PathSigner:
    """Makes addresses under `base_url` and recognises them again (HMAC-SHA256, RFC 2104).

    Args:
        base_url: where the endpoint answers, such as `http://10.0.0.1:7703`.
        secret: the key; it lets its holder read and write everything.
    """

    def __init__(self, base_url: str, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError(f"the secret has {len(secret)} bytes; at least 16 are needed")
        self._base_url = base_url.rstrip("/")
        self._secret = secret

    def get_url(self, key: str, expires: int) -> str:
        """Return an address for GET and HEAD that holds until `expires` (Unix seconds)."""
        return self._url("GET", key, {"expires": str(expires)})

    def put_url(self, key: str, put: SignedPut, expires: int) -> str:
        """Return an address for a PUT of exactly `put` that holds until `expires`."""
        fields = {"expires": str(expires), "size": str(put.size_bytes), "sha256": put.sha256}
        if put.part is not None:
            fields |= {
                "upload": put.part.upload_id,
                "part": str(put.part.number),
                "offset": str(put.part.offset),
            }
        return self._url("PUT", key, fields)

    def check_get(self, key: str, query: Mapping[str, str], now: float) -> None:
        """Recognise an address that `get_url` made.

        Raises:
            SignatureRefusedError: when it did not, or the address has expired.
        """
        self._check("GET", key, query, ("expires",), now)

    def check_put(self, key: str, query: Mapping[str, str], now: float) -> SignedPut:
        """Recognise an address that `put_url` made, and return what may be stored.

        Raises:
            SignatureRefusedError: when it did not, or the address has expired.
        """
        names = ("expires", "size", "sha256")
        if "upload" not in query:
            self._check("PUT", key, query, names, now)
            return SignedPut(int(query["size"]), query["sha256"])
        self._check("PUT", key, query, (*names, "upload", "part", "offset"), now)
        part = SignedPart(query["upload"], int(query["part"]), int(query["offset"]))
        return SignedPut(int(query["size"]), query["sha256"], part)

    def _url(self, method: str, key: str, fields: Mapping[str, str]) -> str:
        signed = {**fields, "signature": self._signature(method, key, fields)}
        return f"{self._base_url}{PATH_PREFIX}{quote(key)}?{urlencode(signed)}"

    def _check(
        self, method: str, key: str, query: Mapping[str, str], names: tuple[str, ...], now: float
    ) -> None:
        if set(query) != {*names, "signature"}:
            raise SignatureRefusedError(f"the address of {key!r} is not signed for {method}")
        fields = {name: query[name] for name in names}
        expected = self._signature(method, key, fields)
        if not hmac.compare_digest(expected.encode(), query["signature"].encode()):
            raise SignatureRefusedError(f"the signature of the address of {key!r} is wrong")
        if now >= int(fields["expires"]):
            raise SignatureRefusedError(
                f"the address of {key!r} has expired: ask the controller for a new one"
            )

    def _signature(self, method: str, key: str, fields: Mapping[str, str]) -> str:
        # No part may contain the separator, and a key may have line breaks.
        text = "\n".join(
            [method, quote(key), *(f"{name}={fields[name]}" for name in sorted(fields))]
        )
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()
