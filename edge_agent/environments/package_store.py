"""What builds have fetched and built, kept on this node so that they are built again without a network.

uv keeps what it unpacks by content, and answers of indexes beside it. pip keeps wheels in a folder,
where it finds them again. Packages of which the recipe says the hash are kept by it.

**Whose they are.** Code of packages runs while they are built, and writes where its installer writes. So the
builds of one namespace have kept packages of their own, and no other process reads or writes them: a
namespace that puts something false there builds with it alone. Packages with a hash are the agent's, which looks at
the hash. At
level `none` all builds run as the agent's user and share one folder; where an operator names another cache of
uv, that one is used there, neither counted nor emptied.

**Why not one folder for all.** A hash that an index names does not help: what a build unpacked or compiled
has none, and it is what saves the time. Two namespaces that use one package fetch it twice.
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


class PackageFolders:
    """What the installers keep in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uv = folder / "uv"
        """The cache of uv."""
        self.pip = folder / "pip"
        """The cache of pip."""
        self.wheels = folder / "wheels"
        """What pip finds without a network."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Variables that lead an installer there.

        Files are copied from there into environments: with a second name for one file, which uv
        prefers, what writes into its environment would write into all of them.
        """
        return MappingProxyType(
            {
                "UV_CACHE_DIR": str(self.uv),
                "UV_LINK_MODE": "copy",
                "PIP_CACHE_DIR": str(self.pip),
            }
        )


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
        self.own = PackageFolders(folder)
        """Those of builds at level `none`."""
        self.hashed = ContentCache(folder, downloader, work, what="package", bytes_max=bytes_max)
        """Packages by their hash."""
        self._folder = folder
        self._work = work
        self._trash = trash
        self.bytes_max = bytes_max

    def of(self, namespace: str) -> PackageFolders:
        """Those of builds of a namespace above level `none`."""
        return PackageFolders(self._folder / "namespaces" / namespace)

    def variables(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """Return those of an installer at level `none`, with where it keeps what it fetches."""
        return MappingProxyType({**self.own.variables, **given})

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
    """Sum up; with a list of folders and not by recursion, since a build may have made them deep."""
    total = 0
    rest = [str(folder)]
    while rest:
        try:
            with os.scandir(rest.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        rest.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue  # it went meanwhile
        yield
    return total
