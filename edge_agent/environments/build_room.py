"""What the build of an environment has around it: a user, variables, a folder to read from, kept packages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from edge_agent.environments.program_room import ProgramRoom
from edge_agent.environments.recipe import Recipe


class BuildRoom(ProgramRoom, Protocol):
    """Where one build happens, and as which user."""

    @property
    def wheels(self) -> Path:
        """The folder where pip keeps what it finds without a network."""
        ...

    def variables(self, *, old_pip: bool = False) -> Mapping[str, str]:
        """Variables of the installer; `old_pip` is one that knows no `NETRC`."""
        ...

    async def make(self, recipe: Recipe, place: Path) -> Path:
        """Make the folder of an environment, and return the one in which the recipe's files lie.

        Raises:
            OSError: the disk does not take it.
        """
        ...

    async def bring_bundle(self, recipe: Recipe, place: Path) -> Path:
        """Copy the whole bundle into an environment that points to it; return where it is.

        Raises:
            OSError: something cannot be read, or the disk does not take it.
        """
        ...

    def packages(self, place: Path) -> Path:
        """The folder, which need not exist, for packages that the agent fetches by their hash.

        No program of the build can have put anything in its way.
        """
        ...

    async def take_over(self, place: Path) -> None:
        """Make what was built the agent's: no other user may write to it.

        Raises:
            LeftBehindError: something in it is not what a build may leave.
            OSError: it cannot be read.
        """
        ...
