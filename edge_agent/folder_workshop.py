"""The work on the attempts of a node, as it is done: in folders, over HTTP, with installers."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.folder_workbench import FolderWorkbench, environment_at_hand
from edge_agent.tree import children
from edge_agent.workshop_tools import WorkshopTools
from services.runtime.log import fields
from shoal.kept_folder import KeptFolder
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.bundles import BundlesWanted

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FolderWorkshop:
    """Benches for the attempts of a node; `attempts` is the folder that holds theirs."""

    attempts: Path
    tools: WorkshopTools

    def bench(self, ref: AttemptRef) -> FolderWorkbench:
        """A bench in the folder of an attempt."""
        return FolderWorkbench(ref, AttemptFolder(f"{self.attempts}/{keeper_id(ref)}"), self.tools)

    def at_hand(self, assignment: Assignment) -> bool:
        """Whether all that an attempt needs is here, so that nothing of its preparation may take long."""
        return environment_at_hand(assignment, self.tools) is not None

    def bundles(self) -> tuple[str, ...]:
        """Digests of the bundles that are here already."""
        return self.tools.bundles.digests()

    def want(self, wanted: BundlesWanted) -> None:
        """Take which bundles are to be here before they are needed, and kept for as long."""
        self.tools.prefetch.want(wanted)

    async def prefetch(self) -> None:
        """Fetch such bundles until cancelled."""
        await self.tools.prefetch.run()

    def kept(self) -> tuple[KeptFolder, ...]:
        """The folders that are kept for people."""
        return self.tools.kept.listed()

    async def trim(self, *, short: bool) -> None:
        """Let go what is kept no longer; `short` says that the disk needs room."""
        if short:
            await self.tools.sandbox.clean()
        await self.tools.kept.trim(short=short)

    def holds(self, ref: AttemptRef) -> bool:
        """Whether its program has secrets as files."""
        return self.tools.secrets.holds(ref)

    async def ended(self, ref: AttemptRef) -> None:
        """Take away the secrets that its program has as files."""
        if self.tools.secrets.holds(ref):
            try:
                await asyncio.to_thread(self.tools.secrets.remove, ref)
            except OSError as error:
                # The next start of the agent tries again.
                LOG.warning("secrets are left in memory", extra=fields(name=ref.name, error=error))

    async def sweep(self, known: Collection[str], running: Collection[str]) -> None:
        """Throw away what is left of attempts that are not known any more, and secrets of programs that do not run."""
        try:
            await asyncio.to_thread(self.tools.secrets.sweep, running)
        except OSError as error:
            LOG.warning("secrets are left in memory", extra=fields(error=error))
        await asyncio.to_thread(self.tools.sandbox.sweep, known)
        for folder in await asyncio.to_thread(self.tools.spares.left):
            await self.tools.trash.throw_or_leave(folder, "a spare folder")
        for folder in await asyncio.to_thread(children, self.attempts):
            if folder.name not in known:
                await self.tools.trash.throw_or_leave(folder, "a folder that no attempt owns")
                if not folder.exists():
                    await asyncio.to_thread(self.tools.sandbox.let_go, folder.name)
