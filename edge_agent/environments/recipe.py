"""The key of an environment: what was asked for, by content, and what it must fit."""

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.environments.interpreter import Interpreter
from shoal.recipe import BundleFiles, Found, ingredients
from shoal.spec import Environment

_FORMAT: Final = 2  # raised when environments are built in another way
_OUTSIDE_ENTRIES_MAX: Final = 10_000


class RecipeError(Exception):
    """The recipe cannot be followed as it is written."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build and where from.

    Attributes:
        environment: what was asked for.
        key: 32 hex digits; equal keys share one build.
        folder: the job's folder, where the bundle lies.
        files: the files of the bundle that the installer reads, by their paths in it.
        links: links of the bundle on the way to them, and where they point.
        plain_key: the key that it has at level `none`, as agents up to 0.1 built all.
        from_bundle: whether the installer may read any file of the bundle, and what it installs may
            point there, so that the build needs a copy of its own.
        alone: whether its key follows from what was asked for and the interpreter alone.
    """

    environment: Environment
    key: str
    folder: Path
    from_bundle: bool = False
    files: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    plain_key: str = ""
    alone: bool = False


class FolderFiles(BundleFiles):
    """The files of a bundle that is laid out in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.links: dict[str, str] = {}
        """Links that were looked at."""

    def look(self, path: str) -> Found | None:
        """Say what lies at a path."""
        place = self._folder / path
        try:
            mode = place.lstat().st_mode
            if stat.S_ISLNK(mode):
                self.links[path] = str(place.readlink())
                return Found(link=self.links[path])
        except (OSError, ValueError):
            return None
        if stat.S_ISDIR(mode):
            return Found(folder=True)
        return Found() if stat.S_ISREG(mode) else None

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return (self._folder / path).read_bytes()


def read_recipe(
    environment: Environment,
    interpreter: Interpreter,
    folder: Path,
    bundle: str,
    variables: Mapping[str, str],
    namespace: str = "",
) -> Recipe:
    """Read a recipe with all the files that it names.

    Args:
        environment: what was asked for.
        interpreter: what it is built for.
        folder: the job's folder, where the bundle lies.
        bundle: what tells one bundle, as it is laid out, from others.
        variables: those of the installer, which may stand in lists of requirements.
        namespace: whose kept packages it is built from; empty at level `none`.

    Raises:
        RecipeError: it names something that the bundle does not have, or would have no effect.
    """
    try:
        files = FolderFiles(folder)
        found = ingredients(environment.steps, files)
        if found.problems:
            raise RecipeError(found.problems[0].message)
        contents = [(path, _digest(folder / path)) for path in sorted(found.files)]
    except OSError as error:
        raise RecipeError(f"the recipe cannot be read: {error}") from error
    facts = [
        _FORMAT,
        [[type(step).__name__, *dataclasses.astuple(step)] for step in environment.steps],
        contents,
        bundle if found.whole else "",
        [(name, variables.get(name, "")) for name in sorted(found.variables)],
        [list(_stamps(Path(path))) for path in sorted(found.outside)],
        # What is installed there already is not installed again, and what goes there is missed.
        [stamp for path in interpreter.site for stamp in _stamp(str(path))]
        if environment.system_site_packages
        else [],
        environment.system_site_packages,
        interpreter.version,
        interpreter.implementation,
        interpreter.abi,
        interpreter.machine,
        interpreter.libc,
        str(interpreter.path),
    ]
    plain = _key(facts)
    return Recipe(
        environment,
        _key([*facts, ["namespace", namespace]]) if namespace else plain,
        folder,
        found.whole,
        files=tuple(sorted(found.files)),
        links=tuple(sorted(files.links.items())),
        plain_key=plain,
        alone=not (found.files or found.whole or found.outside or files.links)
        and not environment.system_site_packages,
    )


def _key(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    """Names, times (ns) and sizes of what lies at a path of the node, in a fixed order."""
    count = 0
    for parent, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            yield from _stamp(os.path.join(parent, name))  # noqa: PTH118 - as os.walk has it
            count += 1
            if count == _OUTSIDE_ENTRIES_MAX:
                return
    yield from _stamp(str(path))


def _stamp(path: str) -> Iterator[tuple[str, int, int]]:
    try:
        status = os.stat(path)  # noqa: PTH116 - follows the link, as reading does
    except (OSError, ValueError):
        return
    yield path, status.st_mtime_ns, status.st_size
