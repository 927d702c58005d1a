"""Whatever is imported is declared by the distribution that imports it, and locked."""

import ast
import re
import sys
import tomllib
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.kit.tree import parsed, sources, text

OURS = {"bench", "compose", "control", "edge_agent", "services", "shoal", "tests"}


def test_the_sdk_imports_what_it_declares() -> None:
    assert _undeclared(_sdk() | _extras("sdk/pyproject.toml"), "sdk/shoal") == []


def test_the_server_imports_what_it_declares() -> None:
    declared = _sdk() | _server() | _extras("pyproject.toml")
    assert _undeclared(declared, "compose", "control", "edge_agent", "services") == []


def test_what_boards_install_has_nothing_of_an_extra() -> None:
    """Packages of the gateway want a newer glibc than the oldest boards have, and boards send no traces."""
    assert sorted(_extras("pyproject.toml") & _locked("server.lock")) == []


def test_tests_and_benchmarks_import_what_is_locked() -> None:
    declared = _sdk() | _server() | _extras("pyproject.toml") | _dev()
    assert _undeclared(declared, "bench", "tests") == []


def test_every_dependency_is_locked() -> None:
    server, extras = _sdk() | _server(), _extras("pyproject.toml")
    everything = server | extras | _extras("sdk/pyproject.toml") | _dev()
    for wanted, lock in (
        (server, "server.lock"),
        (server | _extras("pyproject.toml", "gateway"), "gateway.lock"),
        (server | _extras("pyproject.toml", "traces"), "traces.lock"),
        (everything, "dev.lock"),
    ):
        assert sorted(wanted - _locked(lock) - {"shoal"}) == [], "`make lock`"


def _undeclared(declared: set[str], *folders: str) -> list[str]:
    return [
        f"{path}:{statement.lineno}: {name}"
        for path in sources(*folders)
        for statement in parsed(path).body
        for name in _imported(statement)
        if name not in OURS and name not in sys.stdlib_module_names
        if not _providers(name) & declared
    ]


def _imported(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Import(names=names):
            return [alias.name.split(".")[0] for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module.split(".")[0]]
        case _:
            return []


def _providers(module: str) -> set[str]:
    return {_name(distribution) for distribution in _distributions().get(module, [])}


@lru_cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _extras(of: str, only: str = "") -> set[str]:
    extras = tomllib.loads(text(Path(of)))["project"]["optional-dependencies"]
    return {_name(one) for extra, wanted in extras.items() if only in {"", extra} for one in wanted}


def _sdk() -> set[str]:
    project = tomllib.loads(text(Path("sdk/pyproject.toml")))["project"]
    return {_name(wanted) for wanted in project["dependencies"]}


def _server() -> set[str]:
    project = tomllib.loads(text(Path("pyproject.toml")))["project"]
    return {_name(wanted) for wanted in project["dependencies"]}


def _dev() -> set[str]:
    groups = tomllib.loads(text(Path("pyproject.toml")))["dependency-groups"]
    return {_name(wanted) for wanted in groups["dev"]}


def _locked(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", text(Path("requirements") / lock), re.MULTILINE))


def _name(requirement: str) -> str:
    """Return the normalized name at the head of a requirement (PEP 503)."""
    name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
