"""Packages on a machine for which they are not: each says which one, why, and what to do."""

import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.kit.release import FreshMachine
from tests.kit.tree import ROOT
from tests.kit.until import PATIENCE

_OTHER: Final = "x86_64" if platform.machine() == "aarch64" else "aarch64"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of grpcio for another kind of processor."""
    folder = tmp_path_factory.mktemp("foreign")
    lock = (ROOT / "requirements" / "server.lock").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^grpcio==[0-9.]+", lock, re.MULTILINE)
    said = _pip(
        *("download", "--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11"),
        *("--platform", f"manylinux2014_{_OTHER}", "--platform", f"manylinux_2_17_{_OTHER}"),
        *("-d", str(folder), pinned),
    )
    (wheel,) = folder.glob("grpcio-*.whl")
    assert _OTHER in wheel.name, said
    return wheel


def _pip(*words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "pip", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * 60,
        check=False,
    )
    return ended.stdout


def test_an_interpreter_that_is_too_old_is_told(release: Path, tmp_path: Path) -> None:
    machine = FreshMachine(tmp_path)
    machine.prepare()
    for version in ("3.8", "3.10"):
        status, said = machine.run(
            f"uv pip install --no-index --no-deps --target x --python-version {version} "
            f"{release}/shoal_server-*.whl",
            tmp_path,
        )
        assert status != 0
        assert f"Python version (>={version}) does not satisfy Python>=3.11" in said
        assert "shoal-server" in said


def test_installers_refuse_a_wheel_for_another_processor(foreign: Path, tmp_path: Path) -> None:
    target = ("--no-index", "--no-deps", "--target", str(tmp_path / "x"), str(foreign))
    said = _pip("install", *target)
    assert "is not a supported wheel on this platform" in said
    machine = FreshMachine(tmp_path)
    machine.prepare()
    status, said = machine.run(f"uv pip install {' '.join(target)}", tmp_path)
    assert status != 0
    assert "is incompatible with the current platform" in said
    assert _OTHER in said


@pytest.mark.parametrize(
    "words", ["nodes", "up", "controller --insecure", "agent --insecure --controller 127.0.0.1:1"]
)
def test_a_package_for_another_processor_is_named(
    foreign: Path, tmp_path: Path, words: str
) -> None:
    """As in an environment that was copied from a workstation to a Jetson."""
    with zipfile.ZipFile(foreign) as archive:
        archive.extractall(tmp_path / "site")
    ended = subprocess.run(
        [sys.executable, "-m", "shoal.cli", *words.split()],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * 60,
        check=False,
    )
    said = ended.stdout
    assert ended.returncode == 1, said
    assert "the package grpc cannot be loaded: cannot import name 'cygrpc'" in said
    assert re.search(rf"It belongs to grpcio \S+, which was built for \S+_{_OTHER}", said), said
    assert f"This is Python {platform.python_version()} on {platform.machine()}" in said
    assert "Install Shoal anew on this machine" in said
    assert "Traceback" not in said
