"""A folder of this machine in which refused messages are put aside, one file each."""

import asyncio
import base64
import datetime as dt
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from services.intake.message import IncomingMessage
from services.intake.source import ServerAwayError
from services.runtime.state_folder import PRIVATE_FILE, PRIVATE_FOLDER

FILES_MAX: Final = 10_000
"""Most files; with so many, messages stay with their source until an operator has deleted some."""
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(eq=False)
class DeadLetterFolder:
    """Writes each message as JSON: time, source, id, tries, reason, and `body`, or `body_base64` if it is no text.

    Args:
        folder: where to; made when it is needed.
        wall: seconds since 1970.
    """

    folder: Path
    wall: Callable[[], float]

    async def bury(self, message: IncomingMessage, tries: int, reason: str) -> None:
        """Write the file of a message, once however often it is put aside."""
        await asyncio.to_thread(self._write, message, tries, reason)

    def _write(self, message: IncomingMessage, tries: int, reason: str) -> None:
        when = dt.datetime.fromtimestamp(self.wall(), dt.UTC).isoformat(timespec="seconds")
        letter: dict[str, object] = {
            "time": when.replace("+00:00", "Z"),
            "source": message.source,
            "id": message.id,
            "tries": tries,
            "reason": reason,
        }
        try:
            letter["body"] = message.body.decode()
        except UnicodeDecodeError:
            letter["body_base64"] = base64.b64encode(message.body).decode()
        # Its bytes are part of the name: the same id may be given to another message.
        digest = sha256(repr(message.key).encode() + message.body).hexdigest()[:16]
        name = f"{_UNFIT.sub('-', message.source)[:80]}-{digest}.json"
        try:
            self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            if sum(1 for _ in os.scandir(self.folder)) >= FILES_MAX:
                raise ServerAwayError(
                    f"{self.folder} holds {FILES_MAX} messages: look at them and delete them, or name a queue "
                    "with --dead-queue"
                )
            self._replace(
                self.folder / name, json.dumps(letter, ensure_ascii=False, indent=2) + "\n"
            )
        except OSError as error:
            raise ServerAwayError(f"{self.folder} cannot be written: {error.strerror}") from error

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        part = path.with_suffix(".part")
        descriptor = os.open(
            part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode(errors="surrogatepass"))
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
