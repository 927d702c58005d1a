"""The room of a build at level `none`: it runs as the agent's user, beside the agent."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.environments.command import run_command
from edge_agent.environments.package_store import PackageStore
from edge_agent.environments.recipe import Recipe
from edge_agent.file_copy import copy_tree
from edge_agent.long_work import LongWork


@dataclass(frozen=True, slots=True)
class OwnRoom:
    """See `edge_agent.environments.build_room.BuildRoom`.

    Args:
        environ: variables of the installer.
        store: what was fetched and built before; `environ` says so to the installer.
        work: copies bundles.
    """

    environ: Mapping[str, str] = field(repr=False)
    store: PackageStore
    work: LongWork

    @property
    def wheels(self) -> Path:
        """The folder where pip keeps what it finds without a network."""
        return self.store.own.wheels

    def variables(self, *, old_pip: bool = False) -> Mapping[str, str]:
        """Variables of the installer."""
        return self.store.pip_variables(self.environ) if old_pip else self.environ

    async def make(self, recipe: Recipe, place: Path) -> Path:
        """Nothing is made: the installer does; the recipe's files lie in the job's folder."""
        del place
        return recipe.folder

    async def bring_bundle(self, recipe: Recipe, place: Path) -> Path:
        """Copy the whole bundle into an environment that points to it."""
        folder = place / "bundle"
        await self.work.run(copy_tree(recipe.folder, folder))
        return folder

    def packages(self, place: Path) -> Path:
        """The folder for packages that the agent fetches by their hash."""
        return place / "packages"

    async def run(
        self,
        argv: Sequence[str],
        timeout_seconds: float,
        folder: Path | None = None,
        *,
        old_pip: bool = False,
    ) -> str:
        """Run a program to its end."""
        variables = await asyncio.to_thread(self.variables, old_pip=old_pip)
        return await run_command(argv, variables, timeout_seconds, folder)

    async def take_over(self, place: Path) -> None:
        """It is the agent's already."""
        del place
