"""Equal recipes share a build, and nothing else does."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.environments.interpreter import Interpreter
from edge_agent.environments.recipe import RecipeError, read_recipe
from shoal.spec import (
    ConstraintsStep,
    Environment,
    EnvironmentStep,
    PipStep,
    RequirementsStep,
    UrlStep,
    WheelStep,
)

PYTHON = Interpreter(Path("/usr/bin/python3"), (3, 11, 2), "CPython", "cpython-311", "x", "glibc")


def key(
    folder: Path,
    *steps: EnvironmentStep,
    bundle: str = "",
    python: Interpreter = PYTHON,
    **variables: str,
) -> str:
    return read_recipe(Environment(steps=steps), python, folder, bundle, variables).key


def test_the_content_of_files_counts_and_not_what_else_is_in_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy\n")
    first = key(tmp_path, RequirementsStep("r.txt"), bundle="one")
    assert key(tmp_path, RequirementsStep("r.txt"), bundle="two") == first
    (tmp_path / "r.txt").write_text("numpy==2\n")
    assert key(tmp_path, RequirementsStep("r.txt")) != first


def test_files_that_a_requirements_file_names_count(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "r.txt").write_text("-r deep/more.txt\n")
    (tmp_path / "deep/more.txt").write_text("six\n--constraint=../c.txt\n")
    (tmp_path / "c.txt").write_text("six<2\n")
    steps = (RequirementsStep("r.txt"),)
    first = key(tmp_path, *steps)
    (tmp_path / "deep/more.txt").write_text("attrs\n--constraint=../c.txt\n")
    second = key(tmp_path, *steps)
    (tmp_path / "c.txt").write_text("six<3\n")
    assert len({first, second, key(tmp_path, *steps)}) == 3


@pytest.mark.parametrize("text", ["./mine\n", "-e .\n", "mine @ file:///x\n", "wheels/m-1.whl\n"])
def test_k1_the_bundle_counts_where_it_is_installed_from(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.txt").write_text(text)
    one = key(tmp_path, RequirementsStep("r.txt"), bundle="one")
    assert key(tmp_path, RequirementsStep("r.txt"), bundle="two") != one
    assert read_recipe(
        Environment(steps=(RequirementsStep("r.txt"),)), PYTHON, tmp_path, "one", {}
    ).from_bundle


def test_k1_what_lies_on_the_node_counts_by_its_time_and_size(tmp_path: Path) -> None:
    (tmp_path / "node/deep").mkdir(parents=True)
    (tmp_path / "node/deep/a.whl").write_bytes(b"1")
    step = PipStep(("-f", str(tmp_path / "node"), "six"))
    first = key(tmp_path, step)
    assert key(tmp_path, step) == first
    (tmp_path / "node/deep/a.whl").write_bytes(b"22")
    assert key(tmp_path, step) != first


def test_k1_variables_that_the_installer_puts_in_count(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("x @ https://${HOST}/x.whl\n")
    step = RequirementsStep("r.txt")
    assert key(tmp_path, step, HOST="a") != key(tmp_path, step, HOST="b")
    assert key(tmp_path, step, OTHER="a") == key(tmp_path, step, OTHER="b")


def test_k1_packages_of_the_interpreter_count_where_they_are_seen(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    python = replace(PYTHON, site=(tmp_path / "site",))
    seen = Environment(steps=(PipStep(("six",)),), system_site_packages=True)
    keys: list[str] = []
    for environment in (seen, replace(seen, system_site_packages=False)):
        for name in ("a", "b"):
            (tmp_path / "site" / f"{name}-{len(keys)}").mkdir()
            os.utime(tmp_path / "site", (len(keys), len(keys)))
            keys.append(read_recipe(environment, python, tmp_path, "", {}).key)
    assert len({*keys[:2]}) == 2
    assert keys[2] == keys[3]


def test_the_order_of_steps_and_the_interpreter_count(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(b"1")
    steps = (PipStep(("six",)), UrlStep("http://x/y.whl"), WheelStep("w.whl"))
    keys = {
        key(tmp_path, *steps),
        key(tmp_path, *reversed(steps)),
        key(tmp_path, *steps, python=replace(PYTHON, version=(3, 11, 3))),
        key(tmp_path, *steps, python=replace(PYTHON, machine="aarch64")),
    }
    assert len(keys) == 4
    (tmp_path / "w.whl").write_bytes(b"2")
    assert key(tmp_path, *steps) not in keys


@pytest.mark.parametrize("path", ["absent.txt", "../r.txt", "/etc/hostname", "folder", "link"])
@pytest.mark.parametrize("step", [RequirementsStep, ConstraintsStep, WheelStep])
def test_a_file_that_is_not_in_the_bundle_is_named(
    tmp_path: Path, step: type[RequirementsStep], path: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(RecipeError, match=path.replace(".", r"\.")):
        key(tmp_path, step(path))
