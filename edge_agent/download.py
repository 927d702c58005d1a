"""Fetching one file over HTTP: resumed after a break, checked before any reader sees it.

What may come right (a name that does not resolve on a board without network, a link that breaks, a
server that is away or busy) is tried again until there was no new byte for so long, and said
meanwhile. What cannot (an address that is none, a certificate that is not trusted, an answer such
as 401, 403, 404, 410) fails at once. A certificate that is not valid *yet* may come right: a board
without a battery begins in 1970.

A resumed request carries `Range` and, where the server gave one, `If-Range` (RFC 9110 §13.1.5,
§14.2), so that a file which changed meanwhile begins anew.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final, Protocol

from edge_agent.web_sessions import WebSessions
from services.runtime.log import fields
from shoal.affix import beside
from shoal.backoff import Backoff
from shoal.redaction import redacted
from shoal.tls import ClientTls

LOG = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1 << 20
# What the client library has read ahead is lost when a link breaks, and it reads ahead a few of these.
_PIECE_BYTES: Final = 128 << 10
_READ_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 10.0
_MD5_ETAG: Final = re.compile(r'"([0-9a-f]{32})"')
_KEYED: Final = (
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
)
"""Headers of objects whose ETag is no MD5, whatever it looks like."""
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOCAL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class FetchError(Exception):
    """The file cannot be had; the message says why."""


class ChecksumError(FetchError):
    """The file is not the one that was asked for."""


class AddressRefusedError(FetchError):
    """The server does not let this address be read: it may have been good for a while only."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What a file has to be of which no SHA-256 is known: its size in bytes, its ETag as HTTP quotes it."""

    size_bytes: int
    etag: str = ""

    @property
    def md5(self) -> str:
        """Its MD5 in hex where the ETag is one, as of objects that S3 was given in one part; else empty."""
        found = _MD5_ETAG.fullmatch(self.etag)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is there: its size in bytes and its SHA-256 in hex."""

    size_bytes: int
    sha256: str


class PartsHere(Protocol):
    """Parts of a file that lie on this node already."""

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        ...

    def read(self, begin: int) -> bytes:
        """Return what is here from byte `begin` on; nothing where it has to be fetched."""
        ...

    def missing_until(self, begin: int) -> int:
        """Return where what has to be fetched from byte `begin` on ends."""
        ...


class _TransientError(Exception):
    """Worth another try."""


_HOST: Final = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_NOT_YET_VALID: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID


@dataclass(eq=False)
class Downloader:
    """Fetches files, trying again while the other side is away.

    Args:
        web: open client sessions; their owner closes them.
        chance: draws from [0, 1) for the jitter between tries.
        tls: says which authorities are believed.
        patience_seconds: how long to go on without a single new byte.
    """

    web: WebSessions
    _: KW_ONLY
    chance: Callable[[], float]
    tls: ClientTls = field(default_factory=ClientTls)
    backoff: Backoff = Backoff(0.2, 10.0)  # noqa: RUF009 - frozen and slotted, as any value
    patience_seconds: float = 600.0

    async def fetch(
        self,
        url: str,
        path: Path,
        *,
        sha256: str = "",
        pin: Pin | None = None,
        what: str = "",
        waiting: Callable[[str], None] = lambda _: None,
        here: PartsHere | None = None,
        patience_seconds: float = 0.0,
        received: Callable[[int], None] = lambda _: None,
    ) -> Fetched:
        """Fetch `url` into `path`; what an earlier try left in `path`.part is used where it can be.

        Args:
            url: where it is.
            path: where it goes.
            sha256: what its bytes have to be, in hex; empty for whatever comes.
            pin: what it has to be else; None for whatever comes.
            what: what people call it; the name of `path` otherwise.
            received: hears how many bytes are there.
            waiting: hears what is fetched, why it has to be tried again, and until when it is.
            here: what needs not be fetched of it, for a file with a `sha256`.
            patience_seconds: how long to go on without a new byte, if not as long as always.

        Raises:
            ChecksumError: the bytes that came are not those of `sha256`, or not those of `pin`.
            AddressRefusedError: the server does not let the address be read.
            FetchError: the server refuses, or was away for too long.
        """
        part = beside(path, ".part")
        keep = bool(sha256 or (pin and pin.etag))
        transfer = _Transfer(url, part, pin, keep=keep, here=here)
        patience = patience_seconds or self.patience_seconds
        await transfer.begin()
        failures = 0
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + patience
        fetching = f"fetching {what or path.name} from {_plain(url)}"
        waiting(f"{fetching}, given up after {patience:g} s without a byte")
        while True:
            before = transfer.received
            try:
                await self._attempt(transfer, received)
                break
            except _trouble() as error:
                if isinstance(error, OSError) and error.errno in _LOCAL:
                    raise  # it is this disk, and no server, that does not take the bytes
                words = _say(error)
                hopeless = _hopeless(error)
                if hopeless:
                    raise FetchError(f"{_plain(url)} cannot be had: {hopeless}") from error
                if transfer.received > before:
                    failures = 0
                    give_up_at = loop.time() + patience
                failures += 1
                if loop.time() >= give_up_at:
                    raise FetchError(
                        f"{_plain(url)} was away for {patience:g} s: {_say(error)}"
                    ) from error
                LOG.info(
                    "a download is tried again",
                    extra=fields(url=_plain(url), received=transfer.received, error=_say(error)),
                )
            delay = self.backoff.delay_seconds(failures, self.chance())
            waiting(
                f"{fetching}: {words}; tried {failures} times, again in {delay:.0f} s, "
                f"given up in {max(give_up_at - loop.time(), 0.0):.0f} s"
            )
            await asyncio.sleep(delay)
        fetched = await asyncio.to_thread(transfer.finish, path, sha256)
        if fetched is None and (transfer.resumed or transfer.here is not None):
            # What lay here, from an earlier try or from others, may have been what was wrong.
            return await self.fetch(
                url, path, sha256=sha256, pin=pin, what=what, waiting=waiting, received=received
            )
        if fetched is None:
            raise ChecksumError(
                f"{_plain(url)} is not what was asked for: {transfer.difference(sha256)}; "
                "it was changed or damaged since it was stored"
            )
        return fetched

    async def _attempt(self, transfer: _Transfer, received: Callable[[int], None]) -> None:
        while await asyncio.to_thread(transfer.fill):
            before = transfer.received
            await self._get(transfer, received)
            if transfer.received == before and not transfer.whole:
                raise _TransientError("nothing of the range came that was asked for")

    async def _get(self, transfer: _Transfer, received: Callable[[int], None]) -> None:
        """Make one request, for all that is missing or for a range of it."""
        headers: dict[str, str] = {}
        end = transfer.end()
        if transfer.received or end is not None:
            last = "" if end is None else end - 1
            headers["Range"] = f"bytes={transfer.received}-{last}"
        pinned = "" if transfer.pin is None else transfer.pin.etag
        if pinned:
            headers["If-Match"] = pinned
        elif transfer.received and transfer.etag:
            headers["If-Range"] = transfer.etag
        session = await self.web.toward(transfer.url)
        import aiohttp  # noqa: PLC0415 - see WebSessions

        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS
        )
        async with session.get(
            transfer.url,
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=timeout,
            auto_decompress=False,
            ssl=self.tls.context(),
        ) as response:
            if response.status == 416 and "Range" in headers:
                # Nothing is left to send, or the file is shorter now: the hash will tell which.
                if not transfer.is_whole(response.headers.get("Content-Range", "")):
                    await asyncio.to_thread(transfer.restart)
                    raise _TransientError("the file is shorter than what was fetched before")
                transfer.whole = True
                return
            if response.status in _TRANSIENT:
                raise _TransientError(f"status {response.status}")
            found = response.headers.get("ETag", "")
            if response.status == 412 or (response.ok and pinned and found not in {"", pinned}):
                raise ChecksumError(
                    f"{_plain(transfer.url)} is not what it was when the pipeline was submitted: "
                    f"its ETag was {pinned}{f' and is {found}' if found else ''}; submit again for "
                    "what is there now"
                )
            if response.status not in {200, 206}:
                text = (await response.content.read(300)).decode("utf-8", "replace")
                refused = AddressRefusedError if response.status in {401, 403} else FetchError
                raise refused(
                    f"{_plain(transfer.url)} answers {response.status} {response.reason or ''}: "
                    f"{' '.join(text.split())[:200]}"
                )
            if response.status == 200:
                end = None  # the whole file comes, whatever was asked for
                if transfer.received:
                    await asyncio.to_thread(transfer.restart)
            transfer.etag = found
            transfer.keyed = any(name in response.headers for name in _KEYED)
            async for chunk in response.content.iter_chunked(_PIECE_BYTES):
                left = len(chunk) if end is None else end - transfer.received
                await asyncio.to_thread(transfer.append, chunk[:left])
                received(transfer.received)
        if end is None:
            transfer.whole = True


class _Transfer:
    """One file on its way: what has come, and its hash so far."""

    def __init__(
        self,
        url: str,
        part: Path,
        pin: Pin | None,
        *,
        keep: bool,
        here: PartsHere | None = None,
    ) -> None:
        self.url = url
        self.part = part
        self.pin = pin
        self.here = here
        self.whole = False
        self.received = 0
        self.etag = ""
        self.keyed = False
        """Whether its ETag is no MD5, since a key of its store encrypts it."""
        self.resumed = False
        self.digest = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._keep = keep

    async def begin(self) -> None:
        """Look at what an earlier try left; without a hash to check by it is worth nothing."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        if not self._keep:
            self.part.unlink(missing_ok=True)
        elif self.part.exists():
            await asyncio.to_thread(self._read_part)
            self.resumed = self.received > 0

    def _read_part(self) -> None:
        with self.part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                self._count(chunk)

    def fill(self) -> bool:
        """Take what is here already from where the file ends; say whether more has to be fetched."""
        if self.whole:
            return False
        if self.here is None:
            return True
        while data := self.here.read(self.received):
            self.append(data)
        return self.received < self.here.size_bytes

    def end(self) -> int | None:
        """Where the next range ends; None if it goes to the end of the file."""
        if self.here is None:
            return None
        end = self.here.missing_until(self.received)
        return None if end >= self.here.size_bytes else end

    def append(self, chunk: bytes) -> None:
        """Keep some more bytes."""
        with self.part.open("ab") as file:
            file.write(chunk)
        self._count(chunk)
        if self.pin is not None and self.received > self.pin.size_bytes:
            raise ChecksumError(
                f"{_plain(self.url)} has more than the {self.pin.size_bytes} bytes that were listed: "
                "it was changed since the pipeline was submitted"
            )

    def _count(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        if self.pin is not None and self.pin.md5:
            self._md5.update(chunk)
        self.received += len(chunk)

    def restart(self) -> None:
        """Begin anew."""
        self.part.unlink(missing_ok=True)
        self.received = 0
        self.resumed = False
        self.whole = False
        self.here = None  # what is served is not what was listed
        self.digest = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def difference(self, sha256: str) -> str:
        """Say how it is not what it has to be; empty if it is."""
        if sha256 and self.digest.hexdigest() != sha256:
            return f"its SHA-256 is {self.digest.hexdigest()} and should be {sha256}"
        if self.pin is None:
            return ""
        if self.received != self.pin.size_bytes:
            return f"it has {self.received} bytes and should have {self.pin.size_bytes}"
        if self.pin.md5 and not self.keyed and self._md5.hexdigest() != self.pin.md5:
            return f"its MD5 is {self._md5.hexdigest()} and should be {self.pin.md5}"
        return ""

    def is_whole(self, content_range: str) -> bool:
        """Whether a 416 says that the file ends exactly here (`bytes */SIZE`)."""
        size = content_range.rpartition("/")[2]
        return not size.isdecimal() or int(size) == self.received

    def finish(self, path: Path, sha256: str) -> Fetched | None:
        """Move the file to its place; None, and nothing is left, when it is the wrong one."""
        self.part.touch()  # an empty file is a file
        if self.difference(sha256):
            self.part.unlink()
            return None
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(path)
        return Fetched(self.received, self.digest.hexdigest())


def _trouble() -> tuple[type[Exception], ...]:
    """What may end a try."""
    import aiohttp  # noqa: PLC0415

    return (
        _TransientError,
        aiohttp.ClientError,
        TimeoutError,
        ConnectionError,
        ValueError,  # of what is no address
    )


def _plain(url: str) -> str:
    """An address without its query, which may carry a signature, which is secret."""
    return redacted(url.partition("?")[0])


def _hopeless(error: BaseException) -> str:
    """Why another try would be in vain; empty if it might not."""
    import aiohttp  # noqa: PLC0415

    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = error.certificate_error
            if getattr(reason, "verify_code", 0) == _NOT_YET_VALID:
                return ""
            return (
                f"the certificate of {error.host} is not trusted: "
                f"{getattr(reason, 'verify_message', '') or reason}; correct the address, or name its "
                "authority in SSL_CERT_FILE where the agent starts"
            )
        case ValueError() | aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "this is no address of http or https"
        case aiohttp.ClientConnectorDNSError() if not _HOST.fullmatch(error.host):
            return f"{error.host!r} cannot be the name of a host"
        case aiohttp.TooManyRedirects():
            return "it redirects without end"
        case _:
            return ""


def _say(error: BaseException) -> str:
    import aiohttp  # noqa: PLC0415

    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {error.host} is not valid yet: is the clock of this node right?"
        case aiohttp.ClientConnectorDNSError():
            return f"cannot resolve {error.host}: {error.os_error.strerror}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror}"
        case TimeoutError() if not str(error):
            return "no answer in time"
        case _:
            return str(error) or type(error).__name__
