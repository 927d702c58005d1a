"""Environments on this node: built once by key, complete or not there at all.

A build happens in a folder of its own, `KEY-BUILD`, at the place where it stays, since scripts of a
virtual environment carry its path. A marker that is written last says that it is complete; what
lacks one is the rest of a build that was interrupted, and goes when the agent starts.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from edge_agent.environments.installer import Installer
from edge_agent.environments.interpreter import Interpreters
from edge_agent.environments.recipe import read_recipe
from edge_agent.trash import Trash
from edge_agent.tree import children
from services.runtime.log import fields
from shoal.spec import Environment

LOG = logging.getLogger(__name__)

_MARKER: Final = ".complete"


@dataclass(eq=False)
class EnvironmentCache:
    """Builds environments and remembers them.

    Args:
        folder: where they live.
        interpreters: finds what they are built for.
        installer: builds them.
        trash: takes what is left of builds that failed.
        build_id: draws a short id for the folder of a build.
    """

    folder: Path
    interpreters: Interpreters
    installer: Installer = field(repr=False)
    trash: Trash
    _: KW_ONLY
    build_id: Callable[[], str]
    # One build of a key at a time; a lock goes with the last one that holds it or waits for it.
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(
        default_factory=WeakValueDictionary[str, asyncio.Lock]
    )
    _built: dict[str, Path] = field(default_factory=dict[str, Path])

    async def open(self) -> None:
        """Find what is complete, and remove what is not."""
        self._built, unfinished = await asyncio.to_thread(self._scan)
        for place in unfinished:
            await self._throw(place)

    async def get(
        self,
        environment: Environment,
        folder: Path,
        bundle: str,
        progress: Callable[[str], None],
    ) -> Path:
        """Return the folder of a recipe's environment, building it if it is not there; `bin` has its programs.

        Args:
            environment: the recipe.
            folder: the job's folder, where the bundle lies.
            bundle: what tells one bundle, as it is laid out, from others.
            progress: hears what is done.

        Raises:
            InterpreterMissingError, RecipeError, InstallError, ChecksumError, FetchError:
                it cannot be built; nothing is left of it.
        """
        interpreter = await self.interpreters.find(environment.python)
        recipe = await asyncio.to_thread(
            read_recipe, environment, interpreter, folder, bundle, self.installer.environ
        )
        key = recipe.key
        async with self._locks.setdefault(key, asyncio.Lock()):
            built = self._built.get(key)
            if built is not None and (built / _MARKER).exists():
                return built
            place = self.folder / f"{key}-{self.build_id()}"
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                await self.installer.build(recipe, interpreter, place, progress)
                await asyncio.to_thread(_complete, place, key)
            except BaseException:
                await asyncio.shield(self._throw(place))
                raise
            self._built[key] = place
            LOG.info("environment built", extra=fields(key=key, path=place))
            return place

    async def _throw(self, place: Path) -> None:
        await self.trash.throw_or_leave(place, "an unfinished environment")

    def _scan(self) -> tuple[dict[str, Path], list[Path]]:
        found: dict[str, Path] = {}
        unfinished: list[Path] = []
        for place in children(self.folder):
            key = place.name.partition("-")[0]
            if (place / _MARKER).exists() and key not in found:
                found[key] = place
            else:
                unfinished.append(place)
        return found, unfinished


def _complete(place: Path, key: str) -> None:
    with (place / _MARKER).open("w", encoding="utf-8") as file:
        json.dump({"key": key}, file)
        file.flush()
        os.fsync(file.fileno())
