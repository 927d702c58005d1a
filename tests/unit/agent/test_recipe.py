"""Equal recipes share a build, and nothing else does."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.environments.interpreter import Interpreter
from edge_agent.environments.recipe import RecipeError, environment_key, only_options
from shoal.spec import (
    ConstraintsStep,
    Environment,
    PipStep,
    RequirementsStep,
    UrlStep,
    WheelStep,
)

PYTHON = Interpreter(Path("/usr/bin/python3"), (3, 11, 2), "CPython", "cpython-311", "x", "glibc")


def key(folder: Path, *steps: object, digest: str = "", python: Interpreter = PYTHON) -> str:
    environment = Environment(steps=steps)  # type: ignore[arg-type]
    return environment_key(environment, python, folder, digest)


def test_the_content_of_files_counts_and_not_what_else_is_in_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy\n")
    first = key(tmp_path, RequirementsStep("r.txt"), digest="one")
    assert key(tmp_path, RequirementsStep("r.txt"), digest="two") == first
    (tmp_path / "r.txt").write_text("numpy==2\n")
    assert key(tmp_path, RequirementsStep("r.txt")) != first


def test_files_that_a_requirements_file_names_count(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "r.txt").write_text("-r deep/more.txt\n--constraint=c.txt\n")
    (tmp_path / "deep/more.txt").write_text("six\n")
    (tmp_path / "c.txt").write_text("six<2\n")
    first = key(tmp_path, RequirementsStep("r.txt"))
    (tmp_path / "deep/more.txt").write_text("attrs\n")
    second = key(tmp_path, RequirementsStep("r.txt"))
    (tmp_path / "c.txt").write_text("six<3\n")
    assert len({first, second, key(tmp_path, RequirementsStep("r.txt"))}) == 3


@pytest.mark.parametrize("text", ["./mine\n", "-e .\n", "mine @ file:///x\n"])
def test_the_bundle_counts_where_it_is_installed_from(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.txt").write_text(text)
    one = key(tmp_path, RequirementsStep("r.txt"), digest="one")
    assert key(tmp_path, RequirementsStep("r.txt"), digest="two") != one


def test_the_order_of_steps_and_the_interpreter_count(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(b"1")
    steps = (WheelStep("w.whl"), UrlStep("http://x/y.whl"), PipStep(("six",)))
    keys = {
        key(tmp_path, *steps),
        key(tmp_path, *reversed(steps)),
        key(tmp_path, *steps, python=replace(PYTHON, version=(3, 11, 3))),
        key(tmp_path, *steps, python=replace(PYTHON, machine="aarch64")),
    }
    assert len(keys) == 4
    (tmp_path / "w.whl").write_bytes(b"2")
    assert key(tmp_path, *steps) not in keys


@pytest.mark.parametrize("path", ["absent.txt", "../r.txt", "/etc/hostname", "folder"])
@pytest.mark.parametrize("step", [RequirementsStep, ConstraintsStep, WheelStep])
def test_a_file_that_is_not_in_the_bundle_is_named(
    tmp_path: Path, step: type[RequirementsStep], path: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecipeError, match=path.replace(".", r"\.")):
        key(tmp_path, step(path))


def test_files_that_name_each_other_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    assert key(tmp_path, RequirementsStep("a.txt"))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("--extra-index-url", "http://x"), True),
        (("--no-deps", "-i", "http://x"), True),
        (("--extra-index-url", "http://x", "six"), False),
        (("six",), False),
        (("-r", "r.txt"), False),
        (("-e", "."), False),
    ],
)
def test_arguments_that_install_nothing_are_for_later_steps(
    arguments: tuple[str, ...],
    options: bool,  # noqa: FBT001
) -> None:
    assert only_options(arguments) is options
