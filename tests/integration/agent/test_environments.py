"""Environments built by the real uv, and by pip where uv is too new for the interpreter."""

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from edge_agent.download import Downloader
from edge_agent.environments.cache import EnvironmentCache
from edge_agent.environments.installer import Installer, InstallError
from edge_agent.environments.interpreter import InterpreterMissingError, Interpreters
from edge_agent.environments.recipe import Recipe, RecipeError
from edge_agent.long_work import LongWork
from edge_agent.trash import Trash
from edge_agent.web_sessions import WebSessions
from shoal.spec import (
    ConstraintsStep,
    Environment,
    EnvironmentStep,
    PipStep,
    RequirementsStep,
    WheelStep,
)
from tests.kit.bundle_archive import wheel_of

UV = Path(sys.executable).parent / "uv"
PYTHON = Path(os.path.realpath(sys.executable))


@dataclass
class Workshop:
    """A cache of environments over an empty folder, and a job's folder with wheels."""

    folder: Path
    work: Path
    interpreters: Interpreters
    installer: Installer
    progress: list[str]

    def cache(self) -> EnvironmentCache:
        numbers = itertools.count()
        trash = Trash(
            self.folder.parent / "trash",
            LongWork(time.monotonic),
            new_id=lambda: f"t{next(numbers)}",
            chance=lambda: 0.5,
        )
        return EnvironmentCache(
            self.folder,
            self.interpreters,
            self.installer,
            trash,
            build_id=lambda: f"b{next(numbers)}",
        )

    async def get(self, cache: EnvironmentCache, *steps: EnvironmentStep, bundle: str = "") -> Path:
        environment = Environment(steps=steps)
        return await cache.get(environment, self.work, bundle, self.progress.append)

    def wheel(self, name: str, version: str) -> str:
        file, data = wheel_of(name, version, f"version = '{version}'\n")
        (self.work / file).write_bytes(data)
        return file


def says(built: Path, code: str) -> str:
    return subprocess.run(
        [built / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    """An empty workshop."""
    (tmp_path / "work").mkdir()
    async with aiohttp.ClientSession() as client, LongWork(time.monotonic) as long_work:
        downloader = Downloader(WebSessions(client, client), chance=lambda: 0.5)
        yield Workshop(
            tmp_path / "environments",
            tmp_path / "work",
            Interpreters(UV, PYTHON, dict(os.environ)),
            Installer(UV, dict(os.environ), downloader, long_work),
            [],
        )


async def test_options_and_constraints_hold_for_later_steps(workshop: Workshop) -> None:
    """E5."""
    for version in ("1.0", "2.0"):
        workshop.wheel("shoalpart", version)
    (workshop.work / "limits.txt").write_text("shoalpart<2\n")
    (workshop.work / "r.txt").write_text("shoalpart\n")
    built = await workshop.get(
        workshop.cache(),
        PipStep(("--no-index", "--find-links", ".")),
        ConstraintsStep("limits.txt"),
        RequirementsStep("r.txt"),
    )
    assert says(built, "import shoalpart; print(shoalpart.version)") == "1.0"
    assert any("r.txt" in text for text in workshop.progress)


async def test_an_old_interpreter_is_served_by_its_own_venv_and_pip(workshop: Workshop) -> None:
    interpreter = await workshop.interpreters.find("")
    place = workshop.folder / "old"
    steps = (PipStep(("--no-deps", "--no-index")), WheelStep(workshop.wheel("shoalpart", "1.0")))
    await workshop.installer.build(
        Recipe(Environment(steps=steps), "old", workshop.work),
        replace(interpreter, version=(3, 6, 9)),
        place,
        workshop.progress.append,
    )
    assert says(place, "import shoalpart; print(shoalpart.version)") == "1.0"
    assert says(place, "import pip; print(1)") == "1"


async def test_everybody_who_wants_a_recipe_at_once_gets_the_one_build(workshop: Workshop) -> None:
    cache = workshop.cache()
    step = WheelStep(workshop.wheel("shoalpart", "1.0"))
    built = await asyncio.gather(*(workshop.get(cache, step) for _ in range(5)))
    assert len(set(built)) == 1
    assert len(workshop.progress) == 2
    again = workshop.cache()
    await again.open()
    assert (await workshop.get(again, step)) == built[0]
    assert len(workshop.progress) == 2


async def test_what_was_not_finished_is_removed_and_built_again(workshop: Workshop) -> None:
    cache = workshop.cache()
    built = await workshop.get(cache)
    (built / ".complete").unlink()
    again = workshop.cache()
    await again.open()
    assert not built.exists()
    assert says(await workshop.get(again), "print(2)") == "2"


async def test_a_failed_build_leaves_nothing_and_says_what_the_installer_said(
    workshop: Workshop,
) -> None:
    cache = workshop.cache()
    step = PipStep(("--no-index", "shoal-does-not-exist"))
    with pytest.raises(InstallError, match="shoal-does-not-exist"):
        await workshop.get(cache, step)
    assert list(workshop.folder.iterdir()) == []
    with pytest.raises(RecipeError, match=r"absent\.txt"):
        await workshop.get(cache, RequirementsStep("absent.txt"))


async def test_a_build_that_is_given_up_leaves_nothing(workshop: Workshop) -> None:
    cache = workshop.cache()
    task = asyncio.create_task(workshop.get(cache, WheelStep(workshop.wheel("shoalpart", "1.0"))))
    while not workshop.progress:
        await asyncio.wait({task}, timeout=0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(workshop.folder.iterdir()) == []


@pytest.mark.parametrize("wanted", ["9.9", "/nowhere/python", "--version", "/bin/true"])
async def test_an_interpreter_that_is_not_there_is_named(workshop: Workshop, wanted: str) -> None:
    with pytest.raises(InterpreterMissingError, match=wanted):
        await workshop.interpreters.find(wanted)
