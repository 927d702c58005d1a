"""Environments built by the real uv, and by pip where uv is too new for the interpreter."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.environments.installer import InstallError
from edge_agent.environments.interpreter import InterpreterMissingError
from edge_agent.environments.recipe import Recipe, RecipeError
from shoal.spec import ConstraintsStep, Environment, PipStep, RequirementsStep, WheelStep
from tests.kit.environment_workshop import EnvironmentWorkshop, open_workshop, says


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[EnvironmentWorkshop]:
    """An empty workshop."""
    async with open_workshop(tmp_path) as opened:
        yield opened


async def test_options_and_constraints_hold_for_later_steps(workshop: EnvironmentWorkshop) -> None:
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


async def test_an_old_interpreter_is_served_by_its_own_venv_and_pip(
    workshop: EnvironmentWorkshop,
) -> None:
    interpreter = await workshop.interpreters.find("", workshop.own_room)
    place = workshop.folder / "old"
    steps = (PipStep(("--no-deps", "--no-index")), WheelStep(workshop.wheel("shoalpart", "1.0")))
    await workshop.installer.build(
        Recipe(Environment(steps=steps), "old", workshop.work),
        replace(interpreter, version=(3, 6, 9)),
        place,
        workshop.progress.append,
        workshop.own_room,
    )
    assert says(place, "import shoalpart; print(shoalpart.version)") == "1.0"
    assert says(place, "import pip; print(1)") == "1"


async def test_everybody_who_wants_a_recipe_at_once_gets_the_one_build(
    workshop: EnvironmentWorkshop,
) -> None:
    cache = workshop.cache()
    step = WheelStep(workshop.wheel("shoalpart", "1.0"))
    built = await asyncio.gather(*(workshop.get(cache, step) for _ in range(5)))
    assert len(set(built)) == 1
    assert len(workshop.progress) == 2
    again = workshop.cache()
    await again.open()
    assert (await workshop.get(again, step)) == built[0]
    assert len(workshop.progress) == 2


async def test_what_was_not_finished_is_removed_and_built_again(
    workshop: EnvironmentWorkshop,
) -> None:
    cache = workshop.cache()
    built = await workshop.get(cache)
    workshop.forget()
    (built / ".complete").unlink()
    again = workshop.cache()
    await again.open()
    assert not built.exists()
    assert says(await workshop.get(again), "print(2)") == "2"


async def test_a_failed_build_leaves_nothing_and_says_what_the_installer_said(
    workshop: EnvironmentWorkshop,
) -> None:
    cache = workshop.cache()
    step = PipStep(("--no-index", "shoal-does-not-exist"))
    with pytest.raises(InstallError, match="shoal-does-not-exist"):
        await workshop.get(cache, step)
    assert list(workshop.folder.iterdir()) == []
    with pytest.raises(RecipeError, match=r"absent\.txt"):
        await workshop.get(cache, RequirementsStep("absent.txt"))


async def test_a_build_that_is_given_up_leaves_nothing(workshop: EnvironmentWorkshop) -> None:
    cache = workshop.cache()
    task = asyncio.create_task(workshop.get(cache, WheelStep(workshop.wheel("shoalpart", "1.0"))))
    while not workshop.progress:
        await asyncio.wait({task}, timeout=0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(workshop.folder.iterdir()) == []


@pytest.mark.parametrize("wanted", ["9.9", "/nowhere/python", "--version", "/bin/true"])
async def test_an_interpreter_that_is_not_there_is_named(
    workshop: EnvironmentWorkshop, wanted: str
) -> None:
    with pytest.raises(InterpreterMissingError, match=wanted):
        await workshop.interpreters.find(wanted, workshop.own_room)
