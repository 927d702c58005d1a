"""Building an environment: uv where the interpreter is one that uv knows, else its own venv and pip."""

import logging
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import unquote, urlsplit

from edge_agent.environments.build_room import BuildRoom
from edge_agent.environments.command import CommandFailedError
from edge_agent.environments.interpreter import Interpreter
from edge_agent.environments.package_store import PackageStore
from edge_agent.environments.recipe import Recipe
from services.runtime.log import fields
from shoal import spec
from shoal.recipe import installs

LOG = logging.getLogger(__name__)

_GREETING: Final = re.compile(r"Using Python \S+ environment at: .*\n")
_OLDEST_FOR_UV: Final = (3, 8, 0)
_NO_NETWORK: Final = re.compile(
    r"error sending request|tcp connect error|dns error|connection (?:refused|reset|broken|timed out)"
    r"|failed to establish a new connection|network (?:is )?unreachable|no route to host|timed out"
    r"|name resolution|name or service not known|http status server error|\b50[234] server error",
    re.IGNORECASE,
)
"""What uv and pip say where an index is away; what an index refuses is the user's to know."""


class InstallError(Exception):
    """The installer failed; the message carries its own words."""


@dataclass(frozen=True, slots=True)
class Installer:
    """Builds environments.

    Args:
        uv: path of the uv program.
        packages: packages of which a recipe says the hash.
        timeout_seconds: how long one step may take.
    """

    uv: Path
    packages: PackageStore
    timeout_seconds: float = 1800.0

    async def build(
        self,
        recipe: Recipe,
        interpreter: Interpreter,
        place: Path,
        progress: Callable[[str], None],
        room: BuildRoom,
    ) -> None:
        """Build the environment at `place`, in a room.

        Where the network does not answer, it is built from what is kept on this node, if that does.

        Raises:
            InstallError: a step failed.
            OSError: the disk does not take it.
            ChecksumError, FetchError: a package with a hash could not be had as it should be.
        """
        await _Build(self, recipe, interpreter, place, progress, room).run()


@dataclass(slots=True)
class _Build:
    """One build on its way."""

    tools: Installer
    recipe: Recipe
    interpreter: Interpreter
    place: Path
    progress: Callable[[str], None]
    room: BuildRoom
    offline: bool = False
    """Whether the network did not answer at an earlier step."""

    async def run(self) -> None:
        tools, recipe, place, room = self.tools, self.recipe, self.place, self.room
        environment = recipe.environment
        version = ".".join(map(str, self.interpreter.version))
        self.progress(f"making an environment for Python {version}")
        folder = await room.make(recipe, place)
        await self._run(self._create(), folder)
        if recipe.from_bundle:
            # An editable install points to its source, which has to live as long as it does.
            folder = await room.bring_bundle(recipe, place)
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
                    package = room.packages(place) / _file_name(url)
                    package.parent.mkdir(exist_ok=True)
                    await tools.packages.hashed.take(sha256, url, package, waiting=self.progress)
                    package.chmod(0o644)
                    what = [str(package)]
                case _:
                    assert_never(step)
            self.progress(f"installing {' '.join(what)} ({number} of {len(environment.steps)})")
            await self._install([*options, *what], folder)
            if not (self._by_uv or self.offline or recipe.from_bundle) and _is_from_afar(step):
                await self._keep([*options, *what], folder)
        if self.offline:
            await self._say_offline(folder)

    @property
    def _by_uv(self) -> bool:
        return self.interpreter.version >= _OLDEST_FOR_UV

    @property
    def _python(self) -> str:
        return str(self.place / "bin" / "python")

    @property
    def _pip(self) -> list[str]:
        return [self._python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]

    def _create(self) -> list[str]:
        site = ["--system-site-packages"] if self.recipe.environment.system_site_packages else []
        python, place = str(self.interpreter.path), str(self.place)
        if self._by_uv:
            return [
                str(self.tools.uv), "venv", "--quiet", "--no-project", "--no-python-downloads",
                "--python", python, *site, place,
            ]  # fmt: skip
        return [python, "-I", "-m", "venv", *site, place]

    async def _install(self, words: Sequence[str], folder: Path) -> None:
        if self.offline:
            await self._install_kept(words, folder)
            return
        install = (
            [str(self.tools.uv), "pip", "install", "--python", self._python]
            if self._by_uv
            else [*self._pip, "install"]
        )
        try:
            await self._run([*install, *words], folder)
        except InstallError as error:
            if _NO_NETWORK.search(str(error)) is None:
                raise
            self.progress("the package index does not answer; what is kept on this node is tried")
            try:
                await self._install_kept(words, folder)
            except InstallError as second:
                raise InstallError(
                    f"{error}\nWith the packages that are kept on this node: {second}"
                ) from error
            self.offline = True

    async def _install_kept(self, words: Sequence[str], folder: Path) -> None:
        if self._by_uv:
            install = [str(self.tools.uv), "pip", "install", "--offline", "--python", self._python]
            await self._run([*install, *words], folder)
        else:
            kept = ["--no-index", "--find-links", str(self.room.wheels)]
            await self._run([*self._pip, "install", *kept, *words], folder)

    async def _keep(self, words: Sequence[str], folder: Path) -> None:
        """Keep what pip has installed, as wheels where they can be built; uv does so by itself."""
        kept = str(self.room.wheels)
        for how in (["wheel", "--wheel-dir", kept], ["download", "--dest", kept]):
            try:
                await self._run([*self._pip, *how, *words], folder)
            except InstallError as error:
                LOG.info("packages are not kept", extra=fields(how=how[0], why=error))
            else:
                return

    async def _say_offline(self, folder: Path) -> None:
        command = (
            [str(self.tools.uv), "pip", "freeze", "--python", self._python]
            if self._by_uv
            else [*self._pip, "freeze"]
        )
        packages = ", ".join((await self._run(command, folder)).split("\n")).strip(", ")
        self.progress(f"built without a network, from what is kept on this node: {packages}")
        LOG.warning(
            "an environment is built without a network, from what is kept on this node",
            extra=fields(key=self.recipe.key, packages=packages),
        )

    async def _run(self, argv: Sequence[str], folder: Path) -> str:
        try:
            return await self.room.run(
                argv, self.tools.timeout_seconds, folder, old_pip=not self._by_uv
            )
        except CommandFailedError as error:
            # uv's greeting would stand where the reason belongs.
            raise InstallError(_GREETING.sub("", str(error), count=1)) from error


def _is_from_afar(step: spec.EnvironmentStep) -> bool:
    match step:
        case spec.UrlStep(_, sha256):
            return not sha256
        case spec.PipStep() | spec.RequirementsStep():
            return True
        case _:
            return False


def _file_name(url: str) -> str:
    name = posixpath.basename(unquote(urlsplit(url).path))
    return name if name not in {"", ".", ".."} else "package"
