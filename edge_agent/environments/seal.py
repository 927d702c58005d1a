"""The seal of an environment: what its files were when it was complete.

**Rule.** An environment is used only while every file that was in it when it was built is there with
the size, the time and the rights that it had, and nothing is there beside them. At level `none` jobs run
as the agent's user and may write into what they run from; a disk may lose what it was given.

**Why like this.** To look at 2,000 files costs some 10 ms, to read them a second, and a job waits
meanwhile. So each use looks, and compares one hash of all that it saw with the one in the marker
that was written last. Of uses that follow each other within a second, all but the first look at the times of its
folders alone: what is installed or removed changes them. The contents are compared once in the life of an agent,
some time after the first use. Before the marker is written the file system is synced, so that no cut of the power
leaves a marker and not its files.

**What does not count.** `__pycache__`, where Python and others keep what they made of files that do count.

Example: a job runs `pip install`; the next job with this recipe finds files that are not in the seal,
and gets an environment that is built anew.
"""

import ctypes
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from edge_agent.long_work import Steps

MARKER: Final = ".complete"
_LIST: Final = ".files"
_CACHES: Final = "__pycache__"
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Seal:
    """What is known of an environment.

    Attributes:
        key: of its recipe.
        stamp: hash of the names, sizes, times and rights of its files.
        size_bytes: what they hold.
    """

    key: str
    stamp: str = ""
    size_bytes: int = 0


def read_seal(place: Path) -> Seal | None:
    """Return the seal of an environment; None for one that was never complete, or was lost since.

    One that an agent of before has built has no stamp.
    """
    try:
        found: Any = json.loads((place / MARKER).read_text("utf-8"))
        return Seal(str(found["key"]), str(found.get("stamp", "")), int(found.get("size_bytes", 0)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def seal(place: Path, key: str) -> Steps[Seal]:
    """Say that an environment is complete; its files are durable before that is.

    Raises:
        OSError: it cannot be read, or the disk does not take it.
    """
    entries = [*_entries(place)]
    unfinished = place / f"{MARKER}.new"
    # What a build left under these names, such as a link to somewhere else, is not written through.
    for ours in (place / _LIST, unfinished):
        ours.unlink(missing_ok=True)
    with (place / _LIST).open("x", encoding="utf-8", errors="surrogateescape") as file:
        for path, mode, _, _ in entries:
            digest = ""
            if stat.S_ISREG(mode):
                digest = yield from _digest(place / path)
            file.write(json.dumps([path, digest]) + "\n")
    _sync(place)
    yield
    found = Seal(key, _stamp(entries), sum(size for _, _, size, _ in entries))
    with unfinished.open("x", encoding="utf-8") as file:
        json.dump(asdict(found), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(place / MARKER)
    return found


def is_intact(place: Path, known: Seal) -> bool:
    """Whether the files of an environment are as they were, by their sizes, times and rights."""
    try:
        return _stamp([*_entries(place)]) == known.stamp
    except OSError:
        return False


def folder_times(place: Path) -> tuple[tuple[str, int], ...]:
    """Return the folders of an environment with the times (ns) at which their entries changed last.

    Raises:
        OSError: one cannot be read.
    """
    found: list[tuple[str, int]] = []
    rest = [str(place)]
    while rest:
        folder = rest.pop()
        # Before it is read: what comes meanwhile is seen at the next look.
        found.append((folder, os.stat(folder, follow_symlinks=False).st_ctime_ns))  # noqa: PTH116
        with os.scandir(folder) as entries:
            rest += [
                entry.path
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and entry.name != _CACHES
            ]
    return tuple(found)


def same_times(folders: Iterable[tuple[str, int]]) -> bool:
    """Whether nothing was made, removed or renamed in these folders since."""
    try:
        return all(
            os.stat(folder, follow_symlinks=False).st_ctime_ns == time  # noqa: PTH116
            for folder, time in folders
        )
    except OSError:
        return False


def changed_content(place: Path) -> Steps[str]:
    """Return the name of a file whose content is not what it was; empty if all are."""
    with (place / _LIST).open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path, digest = json.loads(line)
            if digest and (yield from _digest(place / path)) != digest:
                return str(path)
    return ""


# A tuple, since thousands are made while a job waits.
_Entry: TypeAlias = tuple[str, int, int, int]
"""Path, mode, size and time (ns) of a file or link."""


def _entries(place: Path) -> Iterator[_Entry]:
    """Files and links of an environment in a fixed order, and its folders without their times."""
    rest = [""]
    while rest:
        prefix = rest.pop()
        with os.scandir(place / prefix) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != _CACHES:
                    rest.append(path + "/")
                continue
            if path in {MARKER, _LIST, f"{MARKER}.new"}:
                continue
            status = entry.stat(follow_symlinks=False)
            yield path, status.st_mode, status.st_size, status.st_mtime_ns


def _stamp(entries: list[_Entry]) -> str:
    words = "\n".join([f"{path}\0{mode}\0{size}\0{time}" for path, mode, size, time in entries])
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()


def _digest(path: Path) -> Steps[str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            yield
    yield
    return digest.hexdigest()


def _sync(place: Path) -> None:
    """Make everything on the file system durable; one call costs less than one for each file."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(place))
    finally:
        os.close(descriptor)
