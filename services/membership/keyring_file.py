"""A ring of AES keys in a file: read at the start and when it changes, rewritten when the ring does.

The file is what Serf calls a keyring file: a JSON array of keys in base64, the first of them the
one that seals. One key a line, in base64 or hexadecimal, is understood too.
"""

import asyncio
import codecs
import contextlib
import json
import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

from services.membership.keyring import Keyring
from services.runtime.log import fields
from shoal.affix import beside
from shoal.gossip_key import key_id, parse_key, write_key

LOG = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0
_FILE_BYTES_MAX: Final = 64 * 1024

Stamp = tuple[int, int, int]


class KeyringFileError(Exception):
    """The file cannot be used; the message names it and the remedy, and never a key."""


class KeyringFile:
    """The file at `path`.

    Args:
        path: where it is, or will be; the folder has to be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Stamp | None = None

    def open(self, first: Sequence[bytes]) -> tuple[bytes, ...]:
        """Read the file; if there is none, make it with the keys of `first`.

        Raises:
            KeyringFileError: it cannot be read, or neither it nor a key exists.
        """
        if self._path.exists():
            return self.read()
        if not first:
            raise KeyringFileError(
                f"the keyring {self._path} does not exist; make it with: "
                f"shoal keys generate > {self._path}"
            )
        self.write(first)
        return tuple(first)

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self._path.exists()

    def read(self) -> tuple[bytes, ...]:
        """Read the keys; at least one.

        Raises:
            KeyringFileError: it cannot be read, or holds no keys.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                text = file.read(_FILE_BYTES_MAX).removeprefix(codecs.BOM_UTF8).decode("ascii")
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise KeyringFileError(f"the keyring {self._path} cannot be read: {why}") from None
        self._seen = _stamp(status)
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            LOG.warning(
                "others may read the keyring; chmod 600 keeps them out",
                extra=fields(path=str(self._path)),
            )
        try:
            keys = tuple(dict.fromkeys(parse_key(word) for word in _words(text)))
        except ValueError as error:
            raise KeyringFileError(f"the keyring {self._path}: {error}") from None
        if not keys:
            raise KeyringFileError(f"the keyring {self._path} is empty; put a key into it")
        return keys

    def write(self, keys: Sequence[bytes]) -> None:
        """Replace the file, all at once; only its owner may read it.

        Raises:
            KeyringFileError: it cannot be written.
        """
        text = json.dumps([write_key(key) for key in keys], indent=2) + "\n"
        temporary = beside(self._path, ".new")
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR
            )
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
                self._seen = _stamp(os.fstat(descriptor))
            temporary.replace(self._path)
        except OSError as error:
            raise KeyringFileError(
                f"the keyring {self._path} cannot be written: {error.strerror}"
            ) from None

    async def follow(
        self,
        ring: Keyring,
        rotated: asyncio.Event,
        reread: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep ring and file the same, until cancelled; `reread` is called when the ring took what a file says.

        What was rotated in the whole cluster (`rotated`) wins over what stands in the file. A file that
        cannot be read changes nothing, and one that cannot be written is tried again.
        """
        complained: Stamp | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await rotated.wait()
            try:
                if rotated.is_set():
                    keys = ring.keys
                    await asyncio.to_thread(self.write, keys)
                    if ring.keys == keys:
                        rotated.clear()
                    LOG.info("keyring written", extra=_told(self._path, keys))
                elif (now := await asyncio.to_thread(self._changed)) and now != complained:
                    complained = now
                    keys = await asyncio.to_thread(self.read)
                    if rotated.is_set():
                        continue
                    ring.replace(keys)
                    reread()
                    LOG.info("keyring read again", extra=_told(self._path, keys))
            except KeyringFileError as error:
                LOG.error("keyring not kept", extra=fields(why=error))  # noqa: TRY400 it says all
                if rotated.is_set():
                    await asyncio.sleep(_POLL_SECONDS)

    def _changed(self) -> Stamp | None:
        """Say what the file looks like, if it is there and not as it was last seen."""
        try:
            now = _stamp(self._path.stat())
        except OSError:
            return None
        return None if now == self._seen else now


def _words(text: str) -> Sequence[str]:
    """Split a file into keys.

    Raises:
        ValueError: it begins like JSON, and is no array of strings.
    """
    if not text.lstrip().startswith("["):
        return text.split()
    try:
        found = cast("list[object]", json.loads(text))
    except ValueError:
        raise ValueError('it is no JSON; write ["key", …], or one key a line') from None
    if not all(isinstance(word, str) for word in found):
        raise ValueError('it is no array of strings; write ["key", …], or one key a line')
    return cast("list[str]", found)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _told(path: Path, keys: Sequence[bytes]) -> dict[str, dict[str, object]]:
    return fields(path=str(path), keys=" ".join(key_id(key) for key in keys))
