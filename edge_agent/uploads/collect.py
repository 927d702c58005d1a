"""Which files of a job's folder are archived: those that its patterns name, with size and SHA-256.

Patterns are relative to the job's folder: `*` and `?` stay within a name, `**` spans folders, and a
pattern that names a folder means everything in it. Links are followed only to files inside the
folder, never into folders, so that nothing is archived twice and nothing from outside.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from shoal.model import Artifact

_CHUNK_BYTES: Final = 1 << 20
LOG_NAMES: Final = ("stdout", "stderr")
"""Names under which the two outputs of a program are archived."""


class CollectError(Exception):
    """A file cannot be archived; the message names it."""


def collect(folder: Path, patterns: Sequence[str], logs: Path) -> tuple[Artifact, ...]:
    """Find, measure and hash what is archived, by path.

    Args:
        folder: the job's folder.
        patterns: what the job asked for.
        logs: the folder with `stdout` and `stderr`; empty ones are left out.

    Raises:
        CollectError: a file cannot be read, or its name cannot be a key.
    """
    matches = re.compile("|".join(f"(?:{_regex(pattern)})" for pattern in patterns) or r"(?!)")
    artifacts = [_measure(path, name) for name, path in _files(folder) if matches.fullmatch(name)]
    for name in LOG_NAMES:
        if any(artifact.path == name for artifact in artifacts):
            raise CollectError(
                f"{name!r} of the job's folder has the name under which its log is archived: "
                "write it to results/ or give it another name"
            )
        path = logs / name
        if path.exists() and path.stat().st_size:
            artifacts.append(_measure(path, name))
    return tuple(sorted(artifacts, key=lambda artifact: artifact.path))


def locate(folder: Path, logs: Path, artifact: Artifact) -> Path:
    """Where the file of an artifact lies."""
    return logs / artifact.path if artifact.path in LOG_NAMES else folder / artifact.path


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    root = os.path.realpath(folder)
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            real = os.path.realpath(path)
            if not real.startswith(root + os.sep):
                continue
            try:
                if not stat.S_ISREG(Path(real).stat().st_mode):
                    continue
            except OSError:
                continue  # a link to nothing
            yield path.relative_to(folder).as_posix(), path


def _measure(path: Path, name: str) -> Artifact:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise CollectError(
            f"{os.fsencode(name)!r} is not UTF-8 and cannot be archived: give it another name"
        ) from None
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise CollectError(f"{name!r} cannot be read: {error.strerror}") from error
    return Artifact(name, size, digest.hexdigest())


def _regex(pattern: str) -> str:
    parts = [part for part in pattern.split("/") if part not in {"", "."}]
    words: list[str] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            words.append(".+" if last else "(?:[^/]+/)*")
        else:
            # What a pattern names may be a folder, and then means everything in it.
            words.append(_name_regex(part) + ("(?:/.+)?" if last else "/"))
    return "".join(words)


def _name_regex(part: str) -> str:
    out: list[str] = []
    position = 0
    while position < len(part):
        character = part[position]
        position += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[" and (end := part.find("]", position + 1)) > 0:
            inner = part[position:end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]")
            position = end + 1
        else:
            out.append(re.escape(character))
    return "".join(out)
