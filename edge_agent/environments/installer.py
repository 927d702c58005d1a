"""Building an environment: uv where the interpreter is one that uv knows, else its own venv and pip."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import unquote, urlsplit

from edge_agent.download import Downloader
from edge_agent.environments.command import CommandFailedError, run_command
from edge_agent.environments.interpreter import Interpreter
from edge_agent.environments.recipe import Recipe
from edge_agent.file_copy import copy_tree
from edge_agent.long_work import LongWork
from shoal import spec
from shoal.recipe import installs

_GREETING: Final = re.compile(r"Using Python \S+ environment at: .*\n")
_OLDEST_FOR_UV: Final = (3, 8, 0)


class InstallError(Exception):
    """The installer failed; the message carries its own words."""


@dataclass(frozen=True, slots=True)
class Installer:
    """Builds environments.

    Args:
        uv: path of the uv program.
        environ: environment of the installer; jobs never see it.
        downloader: fetches packages whose hash the recipe names.
        work: copies bundles.
        timeout_seconds: how long one step may take.
    """

    uv: Path
    environ: Mapping[str, str]
    downloader: Downloader
    work: LongWork
    timeout_seconds: float = 1800.0

    async def build(
        self,
        recipe: Recipe,
        interpreter: Interpreter,
        place: Path,
        progress: Callable[[str], None],
    ) -> None:
        """Build the environment at `place`.

        Raises:
            InstallError: a step failed.
            ChecksumError, FetchError: a package with a hash could not be had as it should be.
        """
        environment, folder = recipe.environment, recipe.folder
        by_uv = interpreter.version >= _OLDEST_FOR_UV
        progress(f"making an environment for Python {'.'.join(map(str, interpreter.version))}")
        await self._run(self._create(environment, interpreter, place, by_uv=by_uv), folder)
        if recipe.from_bundle:
            # An editable install points to its source, which has to live as long as it does.
            folder = place / "bundle"
            await self.work.run(copy_tree(recipe.folder, folder))
        python = str(place / "bin" / "python")
        install = (
            [str(self.uv), "pip", "install", "--python", python]
            if by_uv
            else [python, "-I", "-m", "pip", "install", "--disable-pip-version-check"]
        )
        options: list[str] = []
        for number, step in enumerate(environment.steps, 1):
            what: list[str]
            match step:
                case spec.ConstraintsStep(path):
                    options += ["-c", path]
                    continue
                case spec.PipStep(arguments) if not installs(step):
                    options += arguments
                    continue
                case spec.PipStep(arguments):
                    what = list(arguments)
                case spec.RequirementsStep(path):
                    what = ["-r", path]
                case spec.WheelStep(path):
                    what = [str(folder / path)]
                case spec.UrlStep(url, ""):
                    what = [url]
                case spec.UrlStep(url, sha256):
                    package = place / "packages" / _file_name(url)
                    await self.downloader.fetch(url, package, sha256=sha256)
                    what = [str(package)]
                case _:
                    assert_never(step)
            progress(f"installing {' '.join(what)} ({number} of {len(environment.steps)})")
            await self._run([*install, *options, *what], folder)

    def _create(
        self, environment: spec.Environment, interpreter: Interpreter, place: Path, *, by_uv: bool
    ) -> list[str]:
        site = ["--system-site-packages"] if environment.system_site_packages else []
        if by_uv:
            return [
                str(self.uv), "venv", "--quiet", "--no-project", "--no-python-downloads",
                "--python", str(interpreter.path), *site, str(place),
            ]  # fmt: skip
        return [str(interpreter.path), "-I", "-m", "venv", *site, str(place)]

    async def _run(self, argv: Sequence[str], folder: Path) -> None:
        try:
            await run_command(argv, self.environ, self.timeout_seconds, folder)
        except CommandFailedError as error:
            # uv's greeting would stand where the reason belongs.
            raise InstallError(_GREETING.sub("", str(error), count=1)) from error


def _file_name(url: str) -> str:
    name = posixpath.basename(unquote(urlsplit(url).path))
    return name if name not in {"", ".", ".."} else "package"
