"""The work on the attempts of a node, as it is done: in folders, over HTTP, with installers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.content_cache import ContentCache
from edge_agent.environments.cache import EnvironmentCache
from edge_agent.file_inputs import FileInputs
from edge_agent.folder_workbench import FolderWorkbench
from edge_agent.long_work import LongWork
from edge_agent.sdk_copy import SdkCopy
from edge_agent.trash import Trash
from edge_agent.uploads.uploader import Uploader
from services.runtime.log import fields
from shoal.names import AttemptRef

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FolderWorkshop:
    """What the benches of a node share.

    `attempts` is the folder that holds those of attempts, `environ` the agent's own variables.
    """

    attempts: Path
    sdk: SdkCopy
    environ: Mapping[str, str]
    cached: ContentCache
    inputs: FileInputs
    environments: EnvironmentCache
    uploader: Uploader
    work: LongWork
    trash: Trash

    def bench(self, ref: AttemptRef) -> FolderWorkbench:
        """A bench in the folder of an attempt."""
        return FolderWorkbench(
            ref,
            AttemptFolder(self.attempts / keeper_id(ref)),
            sdk=self.sdk,
            environ=self.environ,
            bundles=self.cached,
            inputs=self.inputs,
            environments=self.environments,
            uploader=self.uploader,
            work=self.work,
            trash=self.trash,
        )

    def bundles(self) -> tuple[str, ...]:
        """Digests of the bundles that are here already."""
        return self.cached.digests()

    async def sweep(self, known: Collection[str]) -> None:
        """Throw folders of attempts away that are not known any more."""
        for folder in await asyncio.to_thread(_folders, self.attempts):
            if folder.name not in known:
                try:
                    await self.trash.throw(folder)
                except OSError as error:
                    LOG.warning(
                        "a folder that no attempt owns cannot be moved away",
                        extra=fields(path=folder, error=error),
                    )


def _folders(attempts: Path) -> list[Path]:
    return list(attempts.iterdir()) if attempts.is_dir() else []
