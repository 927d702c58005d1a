"""A release of the last commit, and machines that have nothing else of Shoal."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.kit.programs import unavailable
from tests.kit.tree import ROOT
from tests.kit.until import PATIENCE

TOOLS: Final = ROOT / ".venv-packages" / "bin"
_UV: Final = ROOT / ".venv" / "bin" / "uv"
_BUILD_SECONDS: Final = 150
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_OF_A_CHECKOUT: Final = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "XDG_STATE_HOME", "CI")


def make_release(folder: Path, commit: str = "HEAD") -> str:
    """Put a release into a folder, as `make packages` does; returns what was said.

    Raises:
        AssertionError: something of it is not in order; the message has what was said.
    """
    if not (TOOLS / "cyclonedx-py").exists():
        unavailable(f"{TOOLS} is not there; `make lane-packages` and `make packages` set it up")
    made = subprocess.run(
        [ROOT / ".ci" / "packages", commit, folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * _BUILD_SECONDS,
        check=False,
    )
    assert made.returncode == 0, made.stdout
    return made.stdout


@dataclass(frozen=True, slots=True)
class FreshMachine:
    """A home folder with uv and pipx, outside of every checkout; packages come from where they do on this machine.

    Attributes:
        folder: where all of it is; `folder / "home"` is the home.
        variables: what its shell knows beside what this machine needs for the network.
    """

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.folder / "home"

    def prepare(self) -> None:
        """Lay it out."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        self.home.mkdir()
        for program in (_UV, TOOLS / "pipx"):
            (programs / program.name).symlink_to(program)

    def environ(self) -> dict[str, str]:
        """Return the variables of its shell."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in _OF_A_CHECKOUT and not name.startswith("SHOAL_")
        }
        cache = kept.get("UV_CACHE_DIR") or str(Path("~/.cache/uv").expanduser())
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{self.folder / 'bin'}:{self.home / '.local' / 'bin'}:{_SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "UV_CACHE_DIR": cache,  # what was fetched once need not be fetched again
            **self.variables,
        }

    def run(self, commands: str, cwd: Path, *, seconds: float = 120) -> tuple[int, str]:
        """Run shell commands to their end; returns their exit status and what they said."""
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=cwd,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE * seconds,
            check=False,
        )
        return ended.returncode, ended.stdout


def copy_examples(folder: Path) -> Path:
    """Copy the folder of the examples, and nothing else of the checkout."""
    shutil.copytree(ROOT / "examples", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
