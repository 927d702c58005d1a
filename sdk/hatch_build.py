"""What a build of either distribution knows and its source does not: the commit, and which `shoal` belongs to it.

`shoal` gets the commit that it is made of, so that an installed `shoal --version` can say it: that is the
variable SHOAL_COMMIT, as in the build of an image, which has no git, or what git says of the checkout.
Without either the build is made all the same, and says no commit. `shoal-server` asks for the `shoal` of
its own version, and for no other one.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_STAMPED = "shoal/version.py"
_LINE = 'COMMIT: Final = ""\n'
_DESCRIBE = ("git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+changes")


class BuildStamp(BuildHookInterface[BuilderConfig]):
    """Adds it; sdk/shoal/version.py has the version of both."""

    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add it to a build; an editable install stays the checkout, whose commit changes."""
        if self.metadata.name == "shoal-server":
            build_data["dependencies"].append(f"shoal=={self.metadata.version}")
        elif version != "editable" and (commit := _commit(self.root)):
            self._stamp(commit, build_data)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made for the build."""
        del version, build_data, artifact_path
        if self._folder is not None:
            self._folder.cleanup()

    def _stamp(self, commit: str, build_data: dict[str, Any]) -> None:
        source = Path(self.root, _STAMPED).read_text(encoding="utf-8")
        if source.count(_LINE) != 1:
            raise ValueError(f"{_STAMPED} has no line {_LINE.strip()!r} to write the commit into")
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-version-")
        stamped = Path(self._folder.name, "version.py")
        stamped.write_text(source.replace(_LINE, f'COMMIT: Final = "{commit}"\n'), encoding="utf-8")
        build_data["force_include"][str(stamped)] = _STAMPED


def _commit(folder: str) -> str:
    if given := os.environ.get("SHOAL_COMMIT", ""):
        return given[:12]
    try:
        said = subprocess.run(
            _DESCRIBE, cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""
