"""Where packages come from: what this machine's pip was told, uv is told too.

uv has settings of its own and does not read pip's. A node on which a person configured pip for the
network that it is on should install without a second configuration, so pip's variables and files
are translated where uv's own are not set (https://pip.pypa.io/en/stable/topics/configuration/,
https://docs.astral.sh/uv/reference/environment/).
"""

import configparser
import os.path
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "trusted-host": "UV_INSECURE_HOST",
        "cert": "SSL_CERT_FILE",
    }
)
"""From an option of pip to the variable of uv; both take several values between blanks."""

_OLDER_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "UV_DEFAULT_INDEX": ("UV_INDEX_URL",),
        "UV_INDEX": ("UV_EXTRA_INDEX_URL",),
    }
)


def pip_files(environ: Mapping[str, str], prefix: Path) -> tuple[Path, ...]:
    """The files that pip reads, the least important first; they need not exist."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":
        return ()
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        Path("/etc/pip.conf"),
        Path("/etc/xdg/pip/pip.conf"),
        home / ".pip/pip.conf",
        config / "pip/pip.conf",
        prefix / "pip.conf",
    ]
    return (*files, Path(named)) if named else tuple(files)


def installer_environ(environ: Mapping[str, str], files: Iterable[Path]) -> Mapping[str, str]:
    """Return `environ` with uv's variables for what pip was told; a file that cannot be read is none."""
    told: dict[str, str] = {}
    for path in files:
        told.update(_read(path))
    for option in _VARIABLES:
        if value := environ.get("PIP_" + option.upper().replace("-", "_")):
            told[option] = value
    result = dict(environ)
    for option, variable in _VARIABLES.items():
        names = (variable, *_OLDER_NAMES.get(variable, ()))
        if option in told and not any(name in environ for name in names):
            values = told[option].split()
            if option == "find-links":
                # pip passes over a folder that is not there; uv fails.
                values = [value for value in values if _is_there(value)]
            # uv separates paths by commas where pip separates them by blanks.
            if values:
                result[variable] = ("," if option == "find-links" else " ").join(values)
    if "extra-index-url" in told:
        # pip takes the best version of all its indexes, uv by itself the first index that has any.
        result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return MappingProxyType(result)


def _is_there(place: str) -> bool:
    scheme, separator, path = place.partition("://")
    if separator and scheme != "file":
        return True  # in the network, where only the installer looks
    # As pip does, which leaves a ~ where there is no home.
    return Path(os.path.expanduser(path if separator else place)).exists()  # noqa: PTH111


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeError, OSError):
        return {}
    return {
        option.replace("_", "-"): value
        for section in ("global", "install")
        if parser.has_section(section)
        for option, value in parser.items(section)
        if option.replace("_", "-") in _VARIABLES
    }
