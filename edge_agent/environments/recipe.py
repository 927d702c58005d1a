"""The key of an environment: what was asked for, by content, and what it must fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, assert_never

from edge_agent.environments.interpreter import Interpreter
from shoal.spec import (
    ConstraintsStep,
    Environment,
    PipStep,
    RequirementsStep,
    UrlStep,
    WheelStep,
)

_FORMAT: Final = 1  # raised when environments are built in another way
_OPTIONS_WITH_VALUE: Final = frozenset(
    {
        "--index-url", "-i", "--extra-index-url", "--index", "--default-index", "--find-links",
        "-f", "--no-binary", "--only-binary", "--trusted-host", "--allow-insecure-host",
        "--index-strategy", "--prerelease", "--resolution", "--constraint", "-c", "--override",
        "--config-setting", "-C", "--python-version", "--python-platform", "--exclude-newer",
    }
)  # fmt: skip


class RecipeError(Exception):
    """The recipe names something that the bundle does not have."""


def environment_key(
    environment: Environment, interpreter: Interpreter, folder: Path, bundle_digest: str
) -> str:
    """Return the key, 32 hex digits: equal keys share one build.

    Args:
        environment: the recipe.
        interpreter: what it is built for.
        folder: the job's folder, where the bundle lies.
        bundle_digest: stands for the bundle's files where the recipe installs from them.

    Raises:
        RecipeError: a file of the recipe is not in the bundle.
    """
    steps: list[object] = []
    local = False
    for step in environment.steps:
        match step:
            case RequirementsStep(path):
                files = list(_requirement_files(folder, path, set()))
                local = local or any(_installs_locally(text) for _, text in files)
                steps.append(["requirements", [[name, text] for name, text in files]])
            case ConstraintsStep(path):
                texts = [[name, text] for name, text in _requirement_files(folder, path, set())]
                steps.append(["constraints", texts])
            case UrlStep(url, sha256):
                steps.append(["url", url, sha256])
            case WheelStep(path):
                wheel = inside(folder, path)
                steps.append(["wheel", wheel.name, hashlib.sha256(_bytes(wheel, path)).hexdigest()])
            case PipStep(arguments):
                local = local or any((folder / word).exists() for word in arguments)
                steps.append(["pip", *arguments])
            case _:
                assert_never(step)
    facts = [
        _FORMAT,
        steps,
        environment.system_site_packages,
        interpreter.version,
        interpreter.implementation,
        interpreter.abi,
        interpreter.machine,
        interpreter.libc,
        str(interpreter.path),
        bundle_digest if local else "",
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def inside(folder: Path, path: str) -> Path:
    """Return where a file of the bundle lies.

    Raises:
        RecipeError: it is not there, or not in the bundle at all.
    """
    parts = PurePosixPath(path)
    place = folder / parts
    if parts.is_absolute() or ".." in parts.parts or not place.is_file():
        raise RecipeError(
            f"the recipe names {path!r}, which is not a file of the bundle: "
            "add it to the bundle or correct the path"
        )
    return place


def only_options(arguments: Sequence[str]) -> bool:
    """Whether arguments install nothing by themselves, so that they are meant for later steps."""
    expects_value = False
    for word in arguments:
        if expects_value:
            expects_value = False
        elif word in _OPTIONS_WITH_VALUE:
            expects_value = True
        elif not word.startswith("-") or word in {"-r", "--requirement", "-e", "--editable"}:
            return False
    return True


def _requirement_files(folder: Path, path: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """A file and every file that it names with -r or -c, each once, with its text."""
    if path in seen:
        return
    seen.add(path)
    text = _bytes(inside(folder, path), path).decode("utf-8", "replace")
    yield path, text
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if len(words) > 1 and words[0] in {"-r", "--requirement", "-c", "--constraint"}:
            nested = str(PurePosixPath(path).parent / words[1])
            if "://" not in words[1]:
                yield from _requirement_files(folder, nested, seen)


def _installs_locally(text: str) -> bool:
    lines = (line.strip() for line in text.splitlines())
    return any(line.startswith((".", "/", "-e", "--editable")) or "file:" in line for line in lines)


def _bytes(place: Path, path: str) -> bytes:
    try:
        return place.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path!r} of the recipe cannot be read: {error.strerror}") from error
