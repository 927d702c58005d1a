"""A folder as one deterministic archive, addressed by the SHA-256 of its bytes.

PAX tar (POSIX.1-2001), sorted by path, owner 0, time 0, permission bits kept; symbolic links and
folders stay what they are (docs/architecture.md, section 6). Equal folders give equal bytes.
"""

import contextlib
import hashlib
import os
import posixpath
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from shoal.ignore import IgnoreRules
from shoal.pieces import Cutter
from shoal.recipe import BundleFiles, Found
from shoal.spec import Layout

IGNORE_FILE = ".shoalignore"
"""A file at the root of a bundle with patterns of what is left out."""

ALWAYS_IGNORED = (".git", "__pycache__")
"""Left out at any depth unless a later pattern takes them back."""

_PERMISSIONS = 0o777


class BundleError(ValueError):
    """A folder that cannot be a bundle; the message names every culprit."""


@dataclass(frozen=True, slots=True)
class BundleFolder:
    """A folder on this machine and the patterns of what is left out of it."""

    path: Path
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a bundle: its path in it, where it is on this machine, what stat says of it."""

    name: str
    source: Path
    mode: int
    size_bytes: int
    link: str = ""

    @property
    def folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class PackedBundle:
    """A packed bundle: the tar's path, SHA-256 (hex), size in bytes, and how many files it has.

    `ends` says where each of its pieces ends, in bytes; a tar that is not known so well travels whole.
    """

    path: Path
    digest: str
    size_bytes: int
    files: int
    ends: tuple[int, ...] = ()


def scan(folder: BundleFolder) -> tuple[Entry, ...]:
    """List what a bundle of this folder would hold, sorted by path.

    Raises:
        BundleError: it is no folder, cannot be read, or holds links that point out of it, devices,
            sockets or pipes; all of them are named.
    """
    try:
        root = folder.path.resolve()
        found = root.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, NUL, too long a name
        raise BundleError(f"{str(folder.path)!r} cannot be a folder: {error}") from None
    if not found:
        raise BundleError(f"{folder.path} is not a folder; name the folder with the job's files")
    rules = IgnoreRules.parse([*ALWAYS_IGNORED, *_ignore_file(root), *folder.exclude])
    culprits: list[str] = []
    entries = sorted(_walk(root, root, rules, culprits), key=lambda entry: entry.name)
    if culprits:
        raise BundleError(f"{folder.path} cannot be a bundle: {'; '.join(sorted(culprits))}")
    return tuple(entries)


def file_names(entries: Sequence[Entry]) -> frozenset[str]:
    """Name the files and links among `entries`, for `shoal.check`."""
    return frozenset(entry.name for entry in entries if not entry.folder)


class Contents(BundleFiles):
    """What a bundle of these entries will hold, read from where its files are now.

    Args:
        entries: what goes into the bundle.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries: Mapping[str, Entry] = {entry.name: entry for entry in entries}

    def layouts(self) -> Mapping[Layout, BundleFiles]:
        """The bundle as each layout lays it out."""
        flat = [
            replace(entry, name=posixpath.basename(name), link=posixpath.basename(entry.link))
            for name, entry in self._entries.items()
            if not entry.folder
        ]
        return {Layout.TREE: self, Layout.FLAT: Contents(flat)}

    def look(self, path: str) -> Found | None:
        """Say what lies at a path."""
        entry = self._entries.get(path)
        return None if entry is None else Found(folder=entry.folder, link=entry.link)

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return self._entries[path].source.read_bytes()


@contextlib.contextmanager
def pack(folder: BundleFolder, into: Path | None = None) -> Iterator[PackedBundle]:
    """Give the bundle of a folder as a file that is there until the block ends.

    Args:
        folder: what to pack.
        into: folder for the file; the system's own for temporary files when None.

    Raises:
        BundleError: see `scan`; also when a file changes while it is packed.
        OSError: the file cannot be written.
    """
    with pack_entries(scan(folder), into) as packed:
        yield packed


def file_entry(name: str, source: Path) -> Entry:
    """Take a single file into a bundle under `name`.

    Raises:
        BundleError: it is not a file, or cannot be read.
    """
    try:
        facts = source.stat()
    except (OSError, ValueError) as error:
        raise BundleError(f"{source} cannot be read: {error}") from None
    if not stat.S_ISREG(facts.st_mode):
        raise BundleError(f"{source} is not a file; name a file")
    return Entry(name, source, facts.st_mode, facts.st_size)


@contextlib.contextmanager
def pack_entries(entries: Sequence[Entry], into: Path | None = None) -> Iterator[PackedBundle]:
    """Give a bundle of these entries, whatever their order; see `pack`.

    Raises:
        BundleError: a file cannot be read, or changes while it is packed.
        OSError: the file cannot be written.
    """
    entries = sorted(entries, key=lambda entry: entry.name)
    descriptor, name = tempfile.mkstemp(prefix="shoal-bundle-", suffix=".tar", dir=into)
    target = Path(name)
    try:
        cutter = Cutter(sum(entry.size_bytes + tarfile.BLOCKSIZE for entry in entries))
        with os.fdopen(descriptor, "wb") as file:
            digest, size_bytes = write(entries, file, cutter)
        yield PackedBundle(
            target,
            digest,
            size_bytes,
            sum(not entry.folder for entry in entries),
            cutter.finish(size_bytes),
        )
    finally:
        target.unlink(missing_ok=True)


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


def write(
    entries: Sequence[Entry], target: _Writable, cutter: Cutter | None = None
) -> tuple[str, int]:
    """Write entries as a tar; return its SHA-256 (hex) and its size in bytes.

    `cutter` hears of each entry where it lies.

    Raises:
        BundleError: a file cannot be read, or is no longer as `scan` saw it.
    """
    counted = _Counted(target)
    with tarfile.open(
        mode="w|", fileobj=cast("IO[bytes]", counted), format=tarfile.PAX_FORMAT, encoding="utf-8"
    ) as archive:
        for entry in entries:
            _add(archive, entry)
            if cutter is not None:
                end = int(archive.offset)
                blocks = -(-entry.size_bytes // tarfile.BLOCKSIZE)
                cutter.entry(entry.name, end - blocks * tarfile.BLOCKSIZE, end)
    return counted.sha256.hexdigest(), counted.size_bytes


class _Counted:
    """Passes bytes on, and keeps their hash and number."""

    def __init__(self, target: _Writable) -> None:
        self._target = target
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes, /) -> int:
        self.sha256.update(data)
        self.size_bytes += len(data)
        return self._target.write(data)


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.name)
    info.mode = stat.S_IMODE(entry.mode) & _PERMISSIONS
    if entry.folder:
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    elif entry.link:
        info.type = tarfile.SYMTYPE
        info.linkname = entry.link
        info.mode = _PERMISSIONS  # a link has none of its own; systems differ in what they say
        archive.addfile(info)
    else:
        info.size = entry.size_bytes
        try:
            with entry.source.open("rb") as source:
                if os.fstat(source.fileno()).st_size != entry.size_bytes:
                    raise BundleError(f"{entry.name} changed while it was packed; try again")
                archive.addfile(info, source)
                if source.read(1):
                    raise BundleError(f"{entry.name} grew while it was packed; try again")
        except OSError as error:
            raise BundleError(f"{entry.name} cannot be packed: {error}") from error


def _ignore_file(root: Path) -> list[str]:
    try:
        return (root / IGNORE_FILE).read_text("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        if (root / IGNORE_FILE).is_symlink():  # or what it names would travel
            raise BundleError(f"{root / IGNORE_FILE} is a link to nothing: {error}") from error
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{root / IGNORE_FILE} cannot be read: {error}") from error


def _walk(root: Path, folder: Path, rules: IgnoreRules, culprits: list[str]) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            items = list(found)
    except OSError as error:
        culprits.append(f"{_name(root, folder)} cannot be read ({error.strerror})")
        return
    for item in items:
        path = Path(item.path)
        name = _name(root, path)
        try:
            facts = item.stat(follow_symlinks=False)
        except OSError as error:
            culprits.append(f"{name} cannot be read ({error.strerror})")
            continue
        if rules.ignores(name, folder=stat.S_ISDIR(facts.st_mode)):
            continue
        if stat.S_ISDIR(facts.st_mode):
            yield Entry(name, path, facts.st_mode, 0)
            yield from _walk(root, path, rules, culprits)
        elif stat.S_ISREG(facts.st_mode):
            yield Entry(name, path, facts.st_mode, facts.st_size)
        elif stat.S_ISLNK(facts.st_mode):
            try:
                link = str(path.readlink())
            except OSError as error:  # gone meanwhile, or of another process
                culprits.append(f"the link {name} cannot be read ({error.strerror})")
                continue
            if _leaves(root, path, link):
                culprits.append(f"the link {name} points out of it, to {link}")
            else:
                yield Entry(name, path, facts.st_mode, 0, link)
        else:
            culprits.append(f"{name} is a device, socket or pipe")


def _leaves(root: Path, path: Path, link: str) -> bool:
    """Say whether a link leads out, by its words or by way of other links."""
    if PurePosixPath(link).is_absolute():
        return True
    by_words = Path(os.path.normpath(path.parent / link))
    in_truth = Path(os.path.realpath(path))
    return not (by_words.is_relative_to(root) and in_truth.is_relative_to(root))


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
