"""Which of the agent's variables reach the processes that it starts: a list by name for each kind.

The agent's environment may hold keys of clouds and clusters, and setup.py of a bundle is code of
its author. So nothing is passed on because it is there; docs/jobs.md has the lists.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_COMMON: Final = (
    "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER",
)  # fmt: skip
_COMMON_PREFIXES: Final = ("LC_",)
_NETWORK: Final = (
    "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE",
    "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY",
    "no_proxy", "NO_PROXY",
)  # fmt: skip
_BUILDS: Final = (
    "AR", "CARGO_HOME", "CC", "CFLAGS", "CMAKE_PREFIX_PATH", "CPPFLAGS", "CUDA_HOME", "CXX", "CXXFLAGS",
    "FC", "GIT_SSL_CAINFO", "LDFLAGS", "MAKEFLAGS", "NETRC", "PKG_CONFIG_PATH", "RUSTUP_HOME",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
)  # fmt: skip
_BUILD_PREFIXES: Final = ("PIP_", "UV_")
_NO_BUILD_PREFIX: Final = "UV_PUBLISH_"  # where packages go to, with its password
_OWN_PROGRAMS: Final = (
    "HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ",
)  # fmt: skip


def job_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What a job gets beside what its specification names."""
    return _named(environ, (*_COMMON, *_NETWORK), _COMMON_PREFIXES)


def process_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What our own processes get that outlive the agent: the keeper and the stream worker."""
    return _named(environ, _OWN_PROGRAMS, _COMMON_PREFIXES)


def installer_variables(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What builds of environments get, and with them the code of packages that are built.

    Args:
        environ: the agent's own variables.
        folder: made and used for a home that is not there: a service user's is often `/nonexistent`.
    """
    names = (*_COMMON, *_NETWORK, *_BUILDS)
    found = _named(environ, names, (*_COMMON_PREFIXES, *_BUILD_PREFIXES))
    found = {name: text for name, text in found.items() if not name.startswith(_NO_BUILD_PREFIX)}
    if not os.access(found.get("TMPDIR", ""), os.W_OK):
        found.pop("TMPDIR", None)
    home = Path(found.get("HOME", ""))
    if not home.is_absolute() or not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        found["HOME"] = str(home)
    cache = found.get("UV_CACHE_DIR")
    if cache and not _is_writable(Path(cache)):
        del found["UV_CACHE_DIR"]
    return found


def _named(
    environ: Mapping[str, str], names: Iterable[str], prefixes: tuple[str, ...]
) -> dict[str, str]:
    wanted = frozenset(names)
    return {
        name: text for name, text in environ.items() if name in wanted or name.startswith(prefixes)
    }


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
