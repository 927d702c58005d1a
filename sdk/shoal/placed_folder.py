"""Where the files of folder inputs lie in the folder of a job, and what its words stand for.

The controller asks here as a pipeline is submitted, and the agent as it fetches, so that they cannot
differ. The layout is that of <user>/<action>/<task>/{Code,Data,Requirements,Input,Model}/ (case E4):

- `layout: tree` keeps the folders below the prefix, `layout: flat` has every file in one folder. Two files
  for one place are refused; none is ever written over.
- `Results/` of such a task is what its runs made, and no input of it: a flat folder leaves it out, unless
  `pattern` says what is taken.
- A key that ends with a slash is how a form or a console writes a folder: it is no file.
- `{inputs.NAME.entry}` is `entry` of the input, or the only `*.py` below `Code/`.
- `{inputs.NAME.requirements}` is the only `*.txt` below `Requirements/` or `Requirement/`; a step that
  names it is left out where there is none.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from shoal import limits, spec
from shoal.folder_listing import FolderListing, ListedFile
from shoal.pattern import PathPattern

FOLDER_PLACE = re.compile(r"\{inputs\.([^{}.]*)\.(entry|requirements)\}")
"""What stands in a word of `run`, or in a step of an environment, for a file of a folder input."""

_CODE = "Code"
_REQUIREMENTS = frozenset({"Requirements", "Requirement"})
_RESULTS = "Results"
_NAME_BYTES_MAX = 255
_PATH_BYTES_MAX = 4_000
_NAMED_MAX = 10


class FolderError(ValueError):
    """The files of an input are not what its job needs; the message says which, and what to change."""


@dataclass(frozen=True, slots=True)
class PlacedFolder:
    """A folder input, and what was found for it."""

    folder: spec.FolderInput
    listing: FolderListing

    def places(self) -> Iterator[tuple[str, ListedFile]]:
        """Where each file lies, relative to the job's folder, in the order of the listing."""
        for file in self.listing.files:
            yield self.place(file.key), file

    def place(self, key: str) -> str:
        """Where one file lies, relative to the job's folder."""
        pure = PurePosixPath(key)
        below = PurePosixPath(pure.name) if self.folder.layout is spec.Layout.FLAT else pure
        return str(PurePosixPath(self.folder.path) / below)

    def entry(self) -> str:
        """The key of the file that `{inputs.NAME.entry}` stands for.

        Raises:
            FolderError: there is none, or several that may be meant.
        """
        wanted = self.folder.entry
        keys = [file.key for file in self.listing.files]
        if wanted:
            found = [key for key in keys if wanted == key]
            # By its name alone, where only one file is called so.
            found = found or [key for key in keys if PurePosixPath(key).name == wanted]
            if len(found) == 1:
                return found[0]
            raise FolderError(
                f"entry {wanted!r} is "
                + (f"{_several(found)}: write one of them" if found else
                   f"no file of {self._where}: it has {_several(keys)}")
            )  # fmt: skip
        found = [key for key in keys if key.endswith(".py") and key.split("/")[0] == _CODE]
        match found:
            case [key]:
                return key
            case []:
                raise FolderError(
                    f"no *.py lies below {self._where}{_CODE}/, which `{{inputs.{self.folder.name}."
                    "entry}` stands for: name the file that is to run with `entry`"
                )
            case _:
                raise FolderError(
                    f"several files below {self._where}{_CODE}/ could be run: {_several(found)}; "
                    "name one of them with `entry`"
                )

    def requirements(self) -> str:
        """The key of the file that `{inputs.NAME.requirements}` stands for; empty if there is none.

        Raises:
            FolderError: several may be meant.
        """
        found = [
            file.key
            for file in self.listing.files
            if file.key.endswith(".txt") and file.key.split("/")[0] in _REQUIREMENTS
        ]
        if len(found) > 1:
            raise FolderError(
                f"several files below {self._where} could be the requirements: {_several(found)}; "
                "leave one, or name its place in the job's folder"
            )
        return found[0] if found else ""

    @property
    def _where(self) -> str:
        return self.folder.prefix or f"{self.folder.artifacts}: "


def chosen(folder: spec.FolderInput, found: Iterable[ListedFile]) -> tuple[ListedFile, ...]:
    """Return those files that an input takes, in the order of their keys.

    Raises:
        FolderError: a key cannot be the name of a file.
    """
    patterns = [PathPattern.parse(text) for text in folder.patterns]
    flat = folder.layout is spec.Layout.FLAT
    taken: list[ListedFile] = []
    for file in found:
        names = file.key.split("/")
        if not names[-1]:
            if file.size_bytes:
                raise FolderError(
                    f"{folder.prefix}{file.key} is called like a folder and has "
                    f"{file.size_bytes} bytes: give it a name"
                )
            continue
        if patterns:
            if not any(pattern.matches(names) for pattern in patterns):
                continue
        elif flat and len(names) > 1 and names[0] == _RESULTS:
            continue
        if problem := _name_problem(file.key, names):
            raise FolderError(f"{folder.prefix}{file.key} {problem}: rename it")
        taken.append(file)
    return tuple(sorted(taken, key=lambda file: file.key))


def _name_problem(key: str, names: Iterable[str]) -> str:
    if any(name in {"", ".", ".."} for name in names):
        return "has an empty name, '.' or '..' in its path"
    if "\0" in key:
        return "has a NUL character in its name"
    if any(len(name.encode()) > _NAME_BYTES_MAX for name in names):
        return f"has a name of more than {_NAME_BYTES_MAX} bytes in its path"
    if len(key.encode()) > _PATH_BYTES_MAX:
        return f"has a path of more than {_PATH_BYTES_MAX} bytes"
    return ""


def check_folders(job: spec.Job, placed: Mapping[str, PlacedFolder]) -> None:
    """Find everything that keeps a job from running with what was found, by the names of its inputs.

    Raises:
        FolderError: the first of it.
    """
    taken = {str(PurePosixPath(file.path)): f"the input {file.name!r}" for file in job.files}
    for folder in job.folders:
        one = placed[folder.name]
        if len(one.listing.files) > limits.FOLDER_FILES_MAX:
            raise FolderError(
                f"{folder.prefix or folder.artifacts} has {len(one.listing.files)} files, "
                f"{limits.FOLDER_FILES_MAX} at most: choose with `pattern`, or pack them"
            )
        if one.listing.size_bytes > limits.FOLDER_BYTES_MAX:
            raise FolderError(
                f"{folder.prefix or folder.artifacts} has {one.listing.size_bytes} bytes, "
                f"{limits.FOLDER_BYTES_MAX} at most: choose with `pattern`"
            )
        for place, file in one.places():
            said = f"{one.listing.root}{file.key}"
            earlier = taken.setdefault(place, said)
            if earlier != said:
                raise FolderError(
                    f"{earlier} and {said} would both be {place!r} in the job's folder: rename one, "
                    "choose with `pattern`, or keep folders with `layout: tree`"
                )
    for place, said in taken.items():
        for parent in PurePosixPath(place).parents:
            if other := taken.get(str(parent)):
                raise FolderError(
                    f"{other} would be a file and, for {said}, a folder in the job's folder: "
                    "rename one, or choose with `pattern`"
                )
    resolved(job, placed)


def resolved(job: spec.Job, placed: Mapping[str, PlacedFolder]) -> spec.Job:
    """Return the job as it is run: with files in the places of `{inputs.NAME.entry}` and the like.

    Raises:
        FolderError: one of them stands for no file, or for several.
    """
    if not job.folders:
        return job

    def file(name: str, kind: str) -> str:
        one = placed[name]
        key = one.entry() if kind == "entry" else one.requirements()
        if not key:
            return ""
        place = one.place(key)
        return f"./{place}" if place.startswith("-") else place  # it is no option

    def filled(word: str) -> str:
        return FOLDER_PLACE.sub(lambda found: file(found[1], found[2]), word)

    steps: list[spec.EnvironmentStep] = []
    for step in job.environment.steps:
        match step:
            case spec.RequirementsStep(path) | spec.WheelStep(path) | spec.ConstraintsStep(path):
                place = filled(path)
                if place:
                    steps.append(replace(step, path=place))
            case _:
                steps.append(step)
    run = tuple(filled(word) for word in job.run)
    return replace(job, run=run, environment=replace(job.environment, steps=tuple(steps)))


def _several(keys: list[str]) -> str:
    named = ", ".join(keys[:_NAMED_MAX])
    more = f" and {len(keys) - _NAMED_MAX} more" if len(keys) > _NAMED_MAX else ""
    return f"{named}{more}"
