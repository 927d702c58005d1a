"""A package of other people that cannot be loaded: which one, why, and what to do, in the place of a traceback.

**Rule.** A module that is not there is named by the error. Where one is there and does not load, the package is the
one in whose module the traceback ends. Only packages of others are explained here: a module of ours that is
missing, or a name in it, is a mistake of ours, and its traceback is what we want to see.

Example: `grpcio` was installed for aarch64 and this is an x86_64. Python passes over its extension module,
whose name has the wrong platform, and says `cannot import name 'cygrpc' from 'grpc._cython'`.
"""

import platform
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from types import TracebackType

_OURS = frozenset({"compose", "control", "edge_agent", "services", "shoal"})


def explain_unloadable(error: ImportError) -> str:
    """Say which package cannot be loaded and what to do; empty where it is one of ours."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else ""
    package = (missing or _last_module(error.__traceback__)).partition(".")[0]
    if package in _OURS or not package:
        return ""
    return (
        f"the package {package} cannot be loaded: {error}\n{_made_for(package)} This is Python "
        f"{platform.python_version()} on {platform.machine()}. Install Shoal anew on this machine, in an "
        "environment of its own (docs/packages.md); one that is copied from another machine, or whose "
        "Python was exchanged, does not work."
    )


def _last_module(traceback: TracebackType | None) -> str:
    """Return the module in which a traceback ends, but for the machinery of imports."""
    found = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if not name.startswith("importlib"):
            found = name
        traceback = traceback.tb_next
    return found


def _made_for(package: str) -> str:
    """Say which distribution has the package, and for what its files were built."""
    for name in packages_distributions().get(package, ()):
        try:
            wheel = distribution(name).read_text("WHEEL") or ""
            version = distribution(name).version
        except PackageNotFoundError:
            continue
        tags = [
            line.removeprefix("Tag: ") for line in wheel.splitlines() if line.startswith("Tag: ")
        ]
        return f"It belongs to {name} {version}, which was built for {' or '.join(tags) or 'what it does not say'}."
    return "It is not installed."
