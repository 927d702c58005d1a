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
from shoal.near_address import is_near
from shoal.tls import client_context

_CHUNK_BYTES = 1024 * 1024
_SILENT_SECONDS = 60.0


def download(url: str, target: Path, *, sha256: str, authorities: bytes = b"") -> None:
    """Fetch an object; blocks.

    Args:
        url: `http://` or `https://` address.
        target: where to put it; its folder is made.
        sha256: what it has to be (hex).
        authorities: those of the cluster (PEM), believed beside those of the system.

    Raises:
        DownloadError: it cannot be fetched or stored, or is not what it has to be; then there is no
            new file.
    """
    opener = _opener(url, authorities)
    digest = hashlib.sha256()
    descriptor, temporary = _temporary(target)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            opener.open(url, timeout=_SILENT_SECONDS) as response,
        ):
            while chunk := _read(response):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
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


def open_at(url: str, offset: int, *, authorities: bytes = b"") -> Any:
    """Open an object from a byte on, to be read with `read_piece` and closed; blocks.

    Raises:
        DownloadError: it cannot be fetched.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"})  # noqa: S310
    try:
        response = _opener(url, authorities).open(request, timeout=_SILENT_SECONDS)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise DownloadError(f"the archive cannot be read: {error}; try again") from error
    if response.status != 206 and offset:
        response.close()
        raise DownloadError("the archive does not serve parts of an object")
    return response


def read_piece(response: Any) -> bytes:
    """Read some more of what `open_at` opened; nothing at its end; blocks.

    Raises:
        DownloadError: it broke off.
    """
    try:
        return _read(response)
    except (HTTPException, OSError) as error:
        raise DownloadError(f"the archive broke off: {error}; try again") from error


def _opener(url: str, authorities: bytes) -> urllib.request.OpenerDirector:
    """How an address is fetched.

    Raises:
        DownloadError: it is none of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise DownloadError(f"{url!r} cannot be fetched; it is no http:// or https:// address")
    proxies: dict[str, str] | None = {} if is_near(url) else None
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler(proxies)]
    if parts.scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=client_context(authorities)))
    return urllib.request.build_opener(*handlers)


def _temporary(target: Path) -> tuple[int, Path]:
    """Open a file beside the target, in a folder that is made."""
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".shoal-", dir=folder)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror} ({error.filename}); choose another folder"
        ) from error
    return descriptor, Path(name)


def _read(response: Any) -> bytes:
    return bytes(response.read(_CHUNK_BYTES))
