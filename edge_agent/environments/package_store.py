"""What builds have fetched and built, kept on this node so that they are built again without a network.

uv keeps what it unpacks by content, and answers of indexes beside it. pip keeps wheels in a folder,
where it finds them again. Packages of which the recipe says the hash are kept by it. Where an
operator names another cache of uv, that one is used, neither counted nor emptied.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edge_agent.content_cache import ContentCache
from edge_agent.download import Downloader
from edge_agent.long_work import LongWork, Steps
from edge_agent.trash import Trash
from services.runtime.log import fields

LOG = logging.getLogger(__name__)


class PackageStore:
    """The packages of a node.

    Args:
        folder: where they lie.
        downloader: fetches those with a hash.
        work: copies and measures.
        trash: takes what goes.
        bytes_max: how much may be kept.
    """

    def __init__(
        self,
        folder: Path,
        downloader: Downloader,
        work: LongWork,
        trash: Trash,
        *,
        bytes_max: int,
    ) -> None:
        self.uv = folder / "uv"
        """The cache of uv."""
        self.pip = folder / "pip"
        """The cache of pip."""
        self.wheels = folder / "wheels"
        """What pip finds without a network."""
        self.hashed = ContentCache(folder, downloader, work, what="package", bytes_max=bytes_max)
        """Packages by their hash."""
        self._folder = folder
        self._work = work
        self._trash = trash
        self.bytes_max = bytes_max

    def variables(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """Return those of an installer, with where it keeps what it fetches.

        Files are copied from there into environments: with a second name for one file, which uv
        prefers, a job that writes into its environment would write into all of them.
        """
        own = {
            "UV_CACHE_DIR": str(self.uv),
            "UV_LINK_MODE": "copy",
            "PIP_CACHE_DIR": str(self.pip),
        }
        return MappingProxyType({**own, **given})

    def pip_variables(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return an installer's variables for a pip that knows no `NETRC`, as that of Python 3.6.

        It looks for `.netrc` at home, so it gets a home with links to that file and to its settings.
        """
        credentials = environ.get("NETRC")
        if not credentials:
            return environ
        home = self._folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        own = Path(environ.get("HOME", "/"))
        links = {".netrc": Path(credentials), ".config": own / ".config", ".pip": own / ".pip"}
        for name, target in links.items():
            link = home / name
            if not link.is_symlink() or link.readlink() != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        return MappingProxyType({**environ, "HOME": str(home)})

    async def size_bytes(self) -> int:
        """How much room they take."""
        return await self._work.run(_size(self._folder))

    async def clear(self) -> None:
        """Begin anew; nothing may be built meanwhile."""
        LOG.info("kept packages are removed", extra=fields(most=self.bytes_max))
        await self._trash.throw_or_leave(self._folder, "kept packages")


def _size(folder: Path) -> Steps[int]:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - as os.walk has it
            except OSError:
                continue  # it went meanwhile
        yield
    return total
