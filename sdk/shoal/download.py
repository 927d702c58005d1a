"""An object from its address to a file, checked before it gets its name."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shoal.errors import DownloadError

_CHUNK_BYTES = 1024 * 1024
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def download(url: str, target: Path, *, sha256: str = "", timeout_seconds: float = 60.0) -> int:
    """Fetch an object; blocks.

    Args:
        url: `http://` or `https://` address.
        target: where to put it; its folder is made.
        sha256: what it has to be (hex); empty means not checked.
        timeout_seconds: how long the server may be silent.

    Returns:
        Size in bytes.

    Raises:
        DownloadError: it cannot be fetched or stored, or is not what it has to be; then there is no
            new file.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise DownloadError(f"{url!r} cannot be fetched; it is no http:// or https:// address")
    # A proxy does not reach what listens on this machine alone.
    proxies: dict[str, str] | None = {} if parts.hostname in _LOOPBACK else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    digest = hashlib.sha256()
    size = 0
    descriptor, temporary = _temporary(target)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            opener.open(url, timeout=timeout_seconds) as response,
        ):
            while chunk := _read(response):
                digest.update(chunk)
                size += file.write(chunk)
        if sha256 and digest.hexdigest() != sha256:
            raise DownloadError(
                f"{target.name} has SHA-256 {digest.hexdigest()} instead of {sha256}; "
                "the archive's copy is damaged"
            )
        temporary.chmod(0o644)
        temporary.replace(target)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise DownloadError(f"{target.name} cannot be fetched: {error}; try again") from error
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _temporary(target: Path) -> tuple[int, Path]:
    """Open a file beside the target, in a folder that is made."""
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=folder)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror} ({error.filename}); choose another folder"
        ) from error
    return descriptor, Path(name)


def _read(response: Any) -> bytes:
    return bytes(response.read(_CHUNK_BYTES))
