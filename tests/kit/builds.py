"""Builds of Shoal that run beside this checkout: the wheels of a commit in a virtual environment of their own."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.kit.wheels import build_wheels

ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@dataclass(frozen=True, slots=True)
class Build:
    """A build by the interpreter that runs it; `name` is for people."""

    name: str
    python: Path

    def command(self, *words: str) -> list[str]:
        """The words that run its `shoal`. Not in a folder with packages of Python: those would come first."""
        return [str(self.python), "-m", "shoal.cli", *words]

    def call(self, *words: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run its `shoal` in a folder to its end."""
        return subprocess.run(
            self.command(*words),
            cwd=folder,
            env={**ENVIRON, **environ},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def this_build() -> Build:
    """The checkout as it is."""
    return Build("this build", Path(sys.executable))


def build_of(commit: str, folder: Path, name: str) -> Build:
    """Install the wheels of a commit, with the dependencies of this checkout's environment.

    Args:
        commit: of this clone.
        folder: where the virtual environment goes.
        name: of the build, for people.
    """
    wheels = build_wheels(commit, folder.with_name(f"{folder.name}.wheels"))
    make_environment(folder)
    install(folder / "bin" / "python", *wheels)
    return Build(name, folder / "bin" / "python")


def make_environment(folder: Path) -> None:
    """Make a virtual environment that finds the dependencies of this one, and no Shoal."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=240)
    own = Path(sysconfig.get_path("purelib"))
    theirs = folder / own.relative_to(sys.prefix)
    # A path in such a file is looked into last, and files of its own kind there are not read: the checkout,
    # which is installed by one, is not found.
    (theirs / "dependencies.pth").write_text(f"{own}\n")
    (folder / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))


def install(python: Path, *wheels: Path) -> None:
    """Install wheels without a network."""
    uv = str(Path(sys.executable).with_name("uv"))
    words = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python)]
    done = subprocess.run(
        [*words, *map(str, wheels)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
