"""Laying a bundle out: exactly as its author had it, and never outside its folder.

Modes, symbolic links and empty folders are kept. Links are made after everything else, so that
nothing is ever written through one, and each must lead to a place inside the folder. Whatever else
a tar may carry (devices, pipes, sparse files, absolute names, `..`) is refused with the name.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Final

from edge_agent.long_work import Steps

_CHUNK_BYTES: Final = 1 << 20
_NAME_ERRORS: Final = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP})
_MODE_BITS: Final = 0o777  # a bundle grants no other user's rights


class BundleRefusedError(Exception):
    """The archive is not one that may be laid out; the message names the entry and the reason."""


@dataclass(frozen=True, slots=True)
class LayoutLimits:
    """What one bundle may hold."""

    bytes_max: int = 64 << 30
    entries_max: int = 1_000_000
    name_bytes_max: int = 4096


DEFAULT_LIMITS: Final = LayoutLimits()


def lay_out(
    archive: Path, folder: Path, *, flat: bool = False, limits: LayoutLimits = DEFAULT_LIMITS
) -> Steps[None]:
    """Lay `archive` (a tar, not compressed) out in `folder`, which must be missing or empty.

    Args:
        archive: the bundle.
        folder: where; made if it is missing. After a refusal it holds what came before.
        flat: put every file into the folder itself, whatever folder it came from (case E4).
        limits: what is too much.

    Raises:
        BundleRefusedError: the archive is damaged, or an entry is not allowed.
        OSError: the disk does not take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layout = _Layout(folder, limits)
    try:
        with archive.open("rb") as file:
            for member, content in _members(file):
                yield
                if flat:
                    yield from layout.take_flat(member, content)
                else:
                    yield from layout.take(member, content)
        yield from layout.finish()
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError) as error:
        raise BundleRefusedError(f"the bundle is not a readable tar: {error}") from error
    except OSError as error:
        if error.errno in _NAME_ERRORS:
            raise BundleRefusedError(
                f"{error.filename!r} is no name for this file system: {error.strerror}"
            ) from error
        raise


def _members(file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:", errorlevel=2, encoding="utf-8") as tar:
        for member in tar:
            if member.offset_data + (member.size if member.isreg() else 0) > size:
                raise BundleRefusedError(
                    f"{member.name!r} claims {member.size} bytes, and the archive ends before: "
                    "it was cut off or changed"
                )
            yield member, tar.extractfile(member) if member.isreg() else None


@dataclass(slots=True)
class _Layout:
    """One layout on its way."""

    folder: Path
    limits: LayoutLimits
    entries: int = 0
    size_bytes: int = 0
    names: dict[str, str] = field(default_factory=dict[str, str])
    """From where something was laid out to what it was called in the archive."""
    folder_modes: dict[Path, int] = field(default_factory=dict[Path, int])
    links: list[tuple[Path, str, str]] = field(default_factory=list[tuple[Path, str, str]])

    def take(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> Steps[None]:
        """Lay one entry out where it was."""
        name = self._checked(member)
        if name == ".":
            self.folder_modes[self.folder] = member.mode & _MODE_BITS
            return
        path = self.folder / name
        self._claim(name, member.name, again=member.isdir())
        self._make_parents(path, member.name)
        if member.isdir():
            path.mkdir(exist_ok=True)
            self.folder_modes[path] = member.mode & _MODE_BITS
        elif member.issym():
            self.links.append((path, member.linkname, member.name))
        elif member.islnk():
            self._hard_link(path, member)
        else:
            yield from self._write(path, member, content)

    def take_flat(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> Steps[None]:
        """Lay one file out in the folder itself."""
        name = self._checked(member)
        if member.isdir():
            return
        base = PurePosixPath(name).name
        if member.issym():
            target = PurePosixPath(member.linkname).name
            if target in {"", ".."}:
                raise BundleRefusedError(
                    f"{member.name!r} is a link to a folder, which a flat layout does not have"
                )
            if target != base:
                self._claim(base, member.name)
                self.links.append((self.folder / base, target, member.name))
            return
        self._claim(base, member.name)
        path = self.folder / base
        if member.islnk():
            raise BundleRefusedError(
                f"{member.name!r} is a hard link, which a flat layout cannot keep: bundle a copy"
            )
        yield from self._write(path, member, content)

    def finish(self) -> Steps[None]:
        """Make the links, see that none leads outside, and give folders their modes."""
        root = os.path.realpath(self.folder)
        for path, target, name in self.links:
            yield
            if os.path.lexists(path):
                raise BundleRefusedError(f"{name!r} is a link and a folder at once")
            path.symlink_to(target)
        for path, target, name in self.links:
            yield
            real = os.path.realpath(path)
            if real != root and not real.startswith(root + os.sep):
                raise BundleRefusedError(
                    f"{name!r} is a link to {target!r}, which leads out of the bundle"
                )
        # Children first: a folder that may not be written to is closed last.
        for path, mode in sorted(self.folder_modes.items(), reverse=True):
            path.chmod(mode)

    def _checked(self, member: tarfile.TarInfo) -> str:
        name = member.name
        self.entries += 1
        if self.entries > self.limits.entries_max:
            raise BundleRefusedError(
                f"the bundle has more than {self.limits.entries_max} entries: split it"
            )
        if len(os.fsencode(name)) > self.limits.name_bytes_max or "\0" in name or not name:
            raise BundleRefusedError(f"{name[:100]!r} is not a name of a file")
        if name.startswith("/"):
            raise BundleRefusedError(f"{name!r} is an absolute path: bundle relative ones")
        parts = PurePosixPath(name).parts
        if ".." in parts:
            raise BundleRefusedError(f"{name!r} leads out of the bundle")
        if member.issym() and member.linkname.startswith("/"):
            raise BundleRefusedError(
                f"{name!r} is a link to {member.linkname!r}, which leads out of the bundle"
            )
        if member.issym() and (not member.linkname or "\0" in member.linkname):
            raise BundleRefusedError(f"{name!r} is a link to nothing")
        known = member.isdir() or member.issym() or member.islnk() or member.isreg()
        if not known or member.sparse is not None:
            raise BundleRefusedError(
                f"{name!r} is neither file, folder nor link (tar type {member.type!r})"
            )
        if member.isreg():
            self.size_bytes += member.size
            if member.size < 0 or self.size_bytes > self.limits.bytes_max:
                raise BundleRefusedError(
                    f"with {name!r} the bundle has more than {self.limits.bytes_max} bytes"
                )
        return str(PurePosixPath(*parts)) if parts else "."

    def _claim(self, place: str, name: str, *, again: bool = False) -> None:
        earlier = self.names.get(place)
        if earlier is not None and not (again and (self.folder / place).is_dir()):
            if earlier == name:
                raise BundleRefusedError(f"{name!r} is in the bundle twice")
            raise BundleRefusedError(
                f"{earlier!r} and {name!r} would both be {place!r}: rename one of them"
            )
        self.names[place] = name

    def _make_parents(self, path: Path, name: str) -> None:
        for parent in reversed(path.relative_to(self.folder).parents[:-1]):
            place = self.folder / parent
            try:
                mode = place.lstat().st_mode
            except FileNotFoundError:
                if any(place == link for link, _, _ in self.links):
                    raise BundleRefusedError(
                        f"{name!r} lies beneath {str(parent)!r}, which is a link"
                    ) from None
                place.mkdir()
                self.names.setdefault(str(parent), str(parent))
                continue
            if not stat.S_ISDIR(mode):
                raise BundleRefusedError(
                    f"{name!r} lies beneath {str(parent)!r}, which is not a folder"
                )

    def _hard_link(self, path: Path, member: tarfile.TarInfo) -> None:
        target = PurePosixPath(member.linkname)
        source = self.folder / target
        if target.is_absolute() or ".." in target.parts or str(target) not in self.names:
            raise BundleRefusedError(
                f"{member.name!r} is a hard link to {member.linkname!r}, "
                "which is no earlier file of the bundle"
            )
        if not source.is_file() or source.is_symlink():
            raise BundleRefusedError(
                f"{member.name!r} is a hard link to {member.linkname!r}, which is not a file"
            )
        os.link(source, path, follow_symlinks=False)

    def _write(self, path: Path, member: tarfile.TarInfo, content: IO[bytes] | None) -> Steps[None]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except (FileExistsError, IsADirectoryError):
            raise BundleRefusedError(
                f"{member.name!r} is a file and something else at once"
            ) from None
        left = member.size
        with os.fdopen(descriptor, "wb") as file:
            while left and content is not None:
                chunk = content.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise BundleRefusedError(f"{member.name!r} is cut off in the archive")
                file.write(chunk)
                left -= len(chunk)
                yield
            os.fchmod(file.fileno(), member.mode & _MODE_BITS)
