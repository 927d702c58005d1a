"""Which files of a job's folder are archived: those that its patterns name, with size and SHA-256.

Patterns are relative to the job's folder (`shoal.pattern` has their words); one that names a folder
means everything in it. **Nothing that a pattern names is left out without a word**:

- A file that cannot be archived (unreadable, a name that no archive takes) fails the attempt, and so
  does a link to something that is not archived under its own name; the other files are kept.
- A link to a file inside the job's folder is archived as a copy. One to a folder inside it is not gone
  into, so that nothing is archived twice, where the patterns name what is in that folder anyway.
- What has no content (sockets, FIFOs, devices, links to nothing) is named in the job's stderr.
- So is what the program wrote beside its results, at the top of its folder, where no pattern leads:
  programs that were written for a folder of their own leave their results there.

The patterns are carried along the walk, so that a folder in which nothing can match is not opened.

**What is said to be there is on the disk**: the results are made durable before the agent records their
hashes. A board whose power fails after that has what it promised, and runs the job not again. Logs are left
to the system: they may end where the power did.

**The job named what is read here**, and where it has a user of its own the agent may read more than it. So
nothing is read that is not that user's, and nothing outside of the job's folder is even looked at; see
`edge_agent.tree`.
"""

import ctypes
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.directory_times import DirectoryTimes
from edge_agent.long_work import Steps
from edge_agent.secrets.masked_file import mask_file
from edge_agent.secrets.secret_mask import NO_MASK, SecretMask
from edge_agent.spare_folders import JOB_PLACES
from edge_agent.tree import (
    Descent,
    LeadsOutError,
    NoPlainFileError,
    PlainFile,
    open_plain,
    resolve_beneath,
)
from services.archive.artifact_key import LOG_PATHS, artifact_key
from services.archive.key import InvalidKeyError
from services.archive.parts import PARTED_BYTES_MIN, part_bytes
from shoal.limits import (
    ARTIFACT_CONTENT_BYTES_MAX,
    ARTIFACT_CONTENTS_BYTES_MAX,
    ARTIFACT_CONTENTS_MAX,
    ARTIFACT_PATH_BYTES_MAX,
    ARTIFACTS_MAX,
)
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.pattern import PathPattern, Places
from shoal.session.uploads import ArtifactContent, ArtifactParts

_CHUNK_BYTES: Final = 1 << 20
_FLUSHED_ONE_BY_ONE_MAX: Final = 16
"""Of more files than these the whole file system is flushed at once, which waits for one commit and not for many."""
_RESULTS: Final = "results"
"""Folder that every job has, so that it is told of whatever becomes of it."""
_FRESH: Final = frozenset({_RESULTS})
"""What lies in the folder of a job that brings nothing along."""
_SIGNS: Final = frozenset("*?[\\")
_LOOK_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
_TOLD_MAX: Final = 10
_NAME_SHOWN: Final = 300
_REASON_SHOWN: Final = 400


@dataclass(frozen=True, slots=True)
class Collected:
    """What is archived, by path, and what is wrong with the files that are not; how large ones are cut."""

    artifacts: tuple[Artifact, ...]
    problem: str = ""
    parts: tuple[ArtifactParts, ...] = ()
    contents: tuple[ArtifactContent, ...] = ()
    """Of small ones what was hashed, as many as travel together, if that was asked for."""


@dataclass(slots=True)
class Problems:
    """Files that are not archived: the first of them with the reason, and how many there are."""

    count: int = 0
    told: list[str] = field(default_factory=list[str])

    def add(self, path: str, why: str) -> None:
        """Take one more."""
        self.count += 1
        if len(self.told) < _TOLD_MAX:
            self.told.append(f"{shown(path)} {why[:_REASON_SHOWN]}")

    def words(self, kept: int) -> str:
        """A sentence that names them and says what became of the others; empty without any."""
        if not self.count:
            return ""
        what = "one result is" if self.count == 1 else f"{self.count} results are"
        more = f"; and {self.count - len(self.told)} more" if self.count > len(self.told) else ""
        others = f"; what was archived is kept ({kept} files)" if kept else ""
        return f"{what} not archived: {'; '.join(self.told)}{more}{others}"


def shown(path: str) -> str:
    """A path for people: quoted, without characters that would do something to a terminal."""
    quoted = repr(os.fsencode(path))[1:] if _has_bytes(path) else repr(path)
    return quoted if len(quoted) <= _NAME_SHOWN else f"{quoted[:_NAME_SHOWN]}…'"


def collect(
    folder: Path,
    patterns: Sequence[str],
    logs: Path,
    ref: AttemptRef,
    before: Collection[str] | None = None,
    mask: SecretMask = NO_MASK,
    owner: int = -1,
    *,
    contents: bool = False,
) -> Steps[Collected]:
    """Find, measure and hash what is archived.

    Args:
        folder: the job's folder.
        patterns: what the job asked for.
        logs: the folder with `stdout` and `stderr`; empty ones are left out.
        ref: the attempt, under whose prefix the files are to be stored.
        before: names in the job's folder when its program started; None if they are not known.
        mask: hides the job's secrets in its logs, where they lie: they are kept for people, too.
        owner: the user that results have to belong to; -1 where it is the agent's own.
        contents: whether what is read of small ones is kept.
    """
    collection = _Collection(folder, tuple(map(PathPattern.parse, patterns)), ref, before, owner)
    collection.room = ARTIFACT_CONTENTS_BYTES_MAX if contents else -1
    yield from collection.walk()
    collection.note_left(patterns)
    if collection.many:
        collection.refuse_many()
    collection.say_notes(logs / "stderr")
    for name in LOG_PATHS:
        yield from collection.take_log(logs, name, mask)
    collection.flush()
    yield
    artifacts = tuple(sorted(collection.artifacts, key=lambda artifact: artifact.path))
    kept = {artifact.path for artifact in artifacts}
    parts = tuple(one for path, one in sorted(collection.parts.items()) if path in kept)
    small = tuple(one for one in collection.contents if one.path in kept)
    problem = mask.text(collection.problems.words(len(artifacts)))
    return Collected(artifacts, problem, parts, small)


def left_nothing(
    folder: str,
    before: Collection[str] | None,
    patterns: Sequence[str],
    times: DirectoryTimes | None = None,
) -> bool:
    """Whether a program left nothing that `collect` would find or tell of; only reads, and the disk is not written to.

    Args:
        folder: that of the attempt.
        before: names in the job's folder when its program started; None if they are not known.
        patterns: what the job asked for.
        times: what was seen of its directories before it began, if the same now is a proof.
    """
    if before != _FRESH or any(map(_SIGNS.isdisjoint, patterns)):
        return False
    try:
        for name in LOG_PATHS:
            if _is_something(f"{folder}/{name}"):
                return False
        if times is not None and all(
            times.is_same(name, os.lstat(f"{folder}/{name}")) for name in JOB_PLACES
        ):
            return True
        work = os.open(f"{folder}/work", _LOOK_FLAGS)
        try:
            if os.listdir(work) != [_RESULTS]:  # noqa: PTH208 - a descriptor
                return False
            results = os.open(_RESULTS, _LOOK_FLAGS, dir_fd=work)
        finally:
            os.close(work)
        try:
            return not os.listdir(results)  # noqa: PTH208 - a descriptor
        finally:
            os.close(results)
    except OSError:
        return False  # `collect` says what is wrong


def _is_something(log: str) -> bool:
    try:
        status = os.lstat(log)
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(status.st_mode) or status.st_size > 0


def locate(folder: Path, logs: Path, artifact: Artifact, owner: int = -1) -> PlainFile:
    """Where the file of an artifact lies; for a link that is the file that it leads to.

    Raises:
        OSError: it leads out of the job's folder by now, or is gone.
    """
    if artifact.path in LOG_PATHS:
        return PlainFile(logs, artifact.path)
    root = Path(os.path.realpath(folder))
    return PlainFile(root, resolve_beneath(str(root), artifact.path), owner)


@dataclass(slots=True)
class _Folder:
    """A folder on the way down, with where each pattern stands in it."""

    prefix: str
    places: tuple[Places, ...]
    below: list[tuple[str, tuple[Places, ...]]]


@dataclass(eq=False)
class _Collection:
    """What was found so far."""

    folder: Path
    patterns: tuple[PathPattern, ...]
    ref: AttemptRef
    before: Collection[str] | None
    owner: int

    def __post_init__(self) -> None:
        self.artifacts: list[Artifact] = []
        self.parts: dict[str, ArtifactParts] = {}
        self.contents: list[ArtifactContent] = []
        self.room = -1
        """How many bytes of contents may still be kept; -1 for none at all, not even empty ones."""
        self.problems = Problems()
        self.found = 0
        self.path_bytes = 0
        self._notes: list[str] = []
        self._unsaid = 0
        self._root = os.path.realpath(self.folder)
        self._met: set[int] = set()
        self._left: list[str] = []
        self._left_unsaid = 0

    def walk(self) -> Steps[None]:
        """Go through the job's folder."""
        try:
            descent = Descent(self.folder)
        except OSError as error:
            self.problems.add(".", f"is the job's folder no more: {error.strerror}")
            return
        try:
            yield from self._walk(descent)
        finally:
            descent.close()

    def _walk(self, descent: Descent) -> Steps[None]:
        begin = tuple(pattern.begin() for pattern in self.patterns)
        folder = _Folder("", begin, [])
        trail = [folder]
        yield from self._look(descent, folder)
        while True:
            yield
            if folder.below:
                name, places = folder.below.pop()
                path = folder.prefix + name
                try:
                    descent.enter(name)
                except OSError as error:
                    self.problems.add(f"{path}/", f"cannot be read: {error.strerror}")
                    continue
                folder = _Folder(f"{path}/", places, [])
                trail.append(folder)
                yield from self._look(descent, folder)
                continue
            trail.pop()
            if not trail:
                return
            folder = trail[-1]
            try:
                descent.leave()
            except OSError as error:
                self.problems.add(folder.prefix or ".", f"was moved meanwhile: {error.strerror}")
                return

    def _look(self, descent: Descent, folder: _Folder) -> Steps[None]:
        """Take the files of one folder, and note the folders below it that matter."""
        try:
            with os.scandir(descent.descriptor) as entries:
                for entry in entries:
                    places = self._step(folder.places, entry.name)
                    if any(places):
                        yield from self._take(descent.descriptor, folder, entry, places)
                    elif not folder.prefix:
                        self._leave(descent.descriptor, entry)
        except OSError as error:
            self.problems.add(folder.prefix or ".", f"cannot be read: {error.strerror}")

    def _step(self, places: tuple[Places, ...], name: str) -> tuple[Places, ...]:
        """Move every pattern on; one that has matched means everything below, too."""
        stepped = tuple(
            at if pattern.end in at else pattern.step(at, name)
            for pattern, at in zip(self.patterns, places, strict=True)
        )
        for index, at in enumerate(stepped):
            if self.patterns[index].end in at:
                self._met.add(index)
        return stepped

    def _matched(self, places: tuple[Places, ...]) -> bool:
        return any(pattern.end in at for pattern, at in zip(self.patterns, places, strict=True))

    def _take(
        self,
        descriptor: int,
        folder: _Folder,
        entry: os.DirEntry[str],
        places: tuple[Places, ...],
    ) -> Steps[None]:
        path = folder.prefix + entry.name
        if entry.is_symlink():
            yield from self._take_link(path, places)
        elif entry.is_dir(follow_symlinks=False):
            folder.below.append((entry.name, places))
        elif self._matched(places):
            name = entry.name
            yield from self._measure(path, lambda: open_plain(name, descriptor, self.owner))
        elif path == _RESULTS:
            self.problems.add(path, "is no folder any more: write files into it")

    def _take_link(self, path: str, places: tuple[Places, ...]) -> Steps[None]:
        matched = self._matched(places)
        try:
            inside = resolve_beneath(self._root, path)
            mode = os.lstat(os.path.join(self._root, inside)).st_mode  # noqa: PTH118 - often
        except LeadsOutError as error:
            self._take_link_out(path, error.target, matched=matched)
            return
        except OSError:
            if matched:
                self._note(f"{shown(path)} is a link to nothing that could be archived")
            return
        if stat.S_ISDIR(mode):
            if self._covered(inside, places):
                return
            where = f"is a link to the folder {shown(inside or '.')}"
            if matched or path == _RESULTS:
                self.problems.add(path, f"{where}: archive that folder, or copy it")
            else:
                self._note(f"{shown(path)} {where}, and nothing in it is archived as {path!r}")
        elif matched:
            yield from self._measure(path, PlainFile(Path(self._root), inside, self.owner).open)

    def _take_link_out(self, path: str, target: str, *, matched: bool) -> None:
        """Tell of a link out of the job's folder; what is there is not looked at for a job of another user."""
        ours = self.owner < 0
        real = os.path.realpath(os.path.join(self._root, path)) if ours else target  # noqa: PTH118
        there = not ours or os.path.exists(real)  # noqa: PTH110 - often
        if matched and there:
            self.problems.add(
                path,
                f"is a link to {shown(real)}, which is not in the job's folder: copy it instead",
            )
        elif matched:
            self._note(f"{shown(path)} is a link to nothing that could be archived")
        elif path == _RESULTS or (ours and os.path.isdir(real)):  # noqa: PTH112 - often
            where = f"is a link to the folder {shown(real)}"
            if path == _RESULTS:
                self.problems.add(path, f"{where}: archive that folder, or copy it")
            else:
                self._note(f"{shown(path)} {where}, and nothing in it is archived as {path!r}")

    def _covered(self, inside: str, places: tuple[Places, ...]) -> bool:
        """Whether all that a link would add is archived under its own name.

        That is so if at the link no pattern stands where it does not stand at the folder itself.
        """
        there = tuple(pattern.begin() for pattern in self.patterns)
        for name in Path(inside).parts:
            there = self._step(there, name)
        return self._matched(there) or all(at <= its for at, its in zip(places, there, strict=True))

    @property
    def many(self) -> bool:
        """Whether there is more than a manifest takes."""
        return self.found > ARTIFACTS_MAX or self.path_bytes > ARTIFACT_PATH_BYTES_MAX

    def refuse_many(self) -> None:
        """Archive none of them: half of the results would look like all."""
        self.artifacts = []
        self.problems.add(
            ".",
            f"holds {self.found} files with {self.path_bytes} bytes of paths to be archived, and an "
            f"attempt has at most {ARTIFACTS_MAX} with {ARTIFACT_PATH_BYTES_MAX}: let the job pack "
            "them into one (tar -cf results.tar results), or name fewer in `archive`",
        )

    def take_log(self, logs: Path, name: str, mask: SecretMask) -> Steps[None]:
        """Take what the program printed, without its secrets."""
        if any(artifact.path == name for artifact in self.artifacts):
            self.artifacts = [one for one in self.artifacts if one.path != name]
            self.contents = [one for one in self.contents if one.path != name]
            self.problems.add(
                name,
                "has the name under which the job's log is archived: "
                "write it to results/ or give it another name",
            )
        path = logs / name
        try:
            if not _is_something(str(path)):
                return
        except OSError as error:
            self.problems.add(name, f"(the job's log) cannot be read: {error.strerror}")
            return
        try:
            yield from mask_file(path, mask)
        except OSError as error:
            why = f"(the job's log) may hold secrets, which cannot be hidden: {error.strerror}"
            self.problems.add(name, why)
            return
        yield from self._measure(name, PlainFile(logs, name).open, "(the job's log) ")

    def _measure(self, path: str, opening: Callable[[], int], what: str = "") -> Steps[None]:
        try:
            artifact_key(self.ref, path)
        except InvalidKeyError as error:
            self.problems.add(path, f"{what}cannot be archived: {error}")
            return
        self.found += 1
        self.path_bytes += len(os.fsencode(path))
        if self.many and not what:
            return  # only counted, so that the reason says how many there are
        size = 0
        try:
            opened = opening()
        except NoPlainFileError as error:
            if what:
                self.problems.add(path, f"{what}cannot be read: {error.strerror}")
            else:
                self._note(f"{shown(path)} is not archived: {error.strerror}")
            return
        except OSError as error:
            self.problems.add(path, f"{what}cannot be read: {error.strerror}")
            return
        with os.fdopen(opened, "rb", buffering=0) as file:
            # One to which a program still writes would never end.
            left = os.fstat(opened).st_size
            digest = _Digest(left)
            small = (
                left <= min(ARTIFACT_CONTENT_BYTES_MAX, self.room)
                and len(self.contents) < ARTIFACT_CONTENTS_MAX
            )
            read: list[bytes] = []
            try:
                while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    digest.update(chunk)
                    if small:
                        read.append(chunk)
                    size += len(chunk)
                    left -= len(chunk)
                    yield
                if not what and self.found <= _FLUSHED_ONE_BY_ONE_MAX:
                    os.fsync(opened)
            except OSError as error:
                self.problems.add(path, f"{what}cannot be read: {error.strerror}")
                return
        self.artifacts.append(Artifact(path, size, digest.whole.hexdigest()))
        if small:
            self.contents.append(ArtifactContent(path, b"".join(read)))
            self.room -= size
        if size >= PARTED_BYTES_MIN:
            self.parts[path] = ArtifactParts(path, digest.part_bytes, digest.finished())

    def flush(self) -> None:
        """Make durable what was not file by file."""
        if self.found <= _FLUSHED_ONE_BY_ONE_MAX or not self.artifacts:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if libc.syncfs(descriptor) != 0:
                problem = os.strerror(ctypes.get_errno())
                self.problems.add(".", f"cannot be made durable: {problem}")
        finally:
            os.close(descriptor)

    def _leave(self, descriptor: int, entry: os.DirEntry[str]) -> None:
        """Remember what the program made at the top of its folder, and no pattern leads to."""
        name = entry.name
        if self.before is None:
            return
        made = name not in self.before
        if name == _RESULTS:  # Shoal made it, and what is in it is the program's
            made = not entry.is_dir(follow_symlinks=False) or _has_files(descriptor, name)
        if not made or name.startswith((".", "__")):
            return
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            return
        if len(self._left) < _TOLD_MAX:
            self._left.append(shown(name + ("/" if entry.is_dir() else "")))
        else:
            self._left_unsaid += 1

    def note_left(self, patterns: Sequence[str]) -> None:
        """Name what was asked for and is not there, and what was made and was not asked for."""
        for index, pattern in enumerate(patterns):
            if index not in self._met and not any(sign in pattern for sign in "*?[\\"):
                self._note(f"{shown(pattern)} of `archive` is not there")
        if self._left:
            more = f" and {self._left_unsaid} more" if self._left_unsaid else ""
            self._note(
                f"not archived, since no pattern of `archive` leads there: "
                f"{', '.join(self._left)}{more}; write to results/, or add what to keep to `archive`"
            )

    def _note(self, words: str) -> None:
        if len(self._notes) < _TOLD_MAX:
            self._notes.append(words)
        else:
            self._unsaid += 1

    def say_notes(self, stderr: Path) -> None:
        """Write what is to be known, though it is no failure, behind the job's own words."""
        if self._unsaid:
            self._notes.append(f"{self._unsaid} more are not archived either")
        text = "".join(f"shoal: {words}\n" for words in self._notes)
        if not text:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(stderr, flags)
        except OSError:
            self.problems.add("stderr", f"cannot take these words: {text}")
            return
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))


class _Digest:
    """The SHA-256 of a file, and of each of its parts if it is to travel in parts, in one pass."""

    def __init__(self, size_bytes: int) -> None:
        self.whole = hashlib.sha256()
        self.part_bytes = part_bytes(size_bytes)
        self._parted = size_bytes >= PARTED_BYTES_MIN
        self._part = hashlib.sha256()
        self._left = self.part_bytes
        self._done: list[str] = []

    def update(self, chunk: bytes) -> None:
        self.whole.update(chunk)
        if not self._parted:
            return
        view = memoryview(chunk)
        while view:
            taken = view[: self._left]
            self._part.update(taken)
            self._left -= len(taken)
            view = view[len(taken) :]
            if not self._left:
                self._end_part()

    def finished(self) -> tuple[str, ...]:
        if self._left < self.part_bytes:
            self._end_part()
        return tuple(self._done)

    def _end_part(self) -> None:
        self._done.append(self._part.hexdigest())
        self._part = hashlib.sha256()
        self._left = self.part_bytes


def _has_files(descriptor: int, name: str) -> bool:
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(name, flags, dir_fd=descriptor)
    except OSError:
        return True
    try:
        with os.scandir(opened) as entries:
            return any(True for _ in entries)
    finally:
        os.close(opened)


def _has_bytes(path: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in path)
