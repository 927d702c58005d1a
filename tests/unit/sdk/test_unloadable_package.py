"""Which package cannot be loaded, and which mistakes are ours to see."""

import importlib
import sys
from pathlib import Path

import pytest

from shoal.unloadable_package import explain_unloadable


def _failure(module: str) -> ImportError:
    with pytest.raises(ImportError) as raised:
        importlib.import_module(module)
    return raised.value


def test_a_package_that_is_not_there_is_named() -> None:
    said = explain_unloadable(_failure("no_such_package_anywhere.inside"))
    assert said.startswith("the package no_such_package_anywhere cannot be loaded: No module named")
    assert "It is not installed." in said
    assert "Install Shoal anew on this machine" in said


def test_a_package_with_an_extension_that_does_not_load_is_named(tmp_path: Path) -> None:
    """As one of another C library, or whose file broke."""
    package = tmp_path / "broken_extension"
    package.mkdir()
    (package / "__init__.py").write_text("from broken_extension import core\n")
    (package / "core.abi3.so").write_bytes(b"\x7fELF of no kind")
    sys.path.insert(0, str(tmp_path))
    try:
        said = explain_unloadable(_failure("broken_extension"))
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("broken_extension", None)
    assert said.startswith("the package broken_extension cannot be loaded: ")
    assert "core.abi3.so" in said


@pytest.mark.parametrize("module", ["shoal.no_such_module", "services.no_such_module"])
def test_what_is_missing_of_ours_is_a_mistake_of_ours(module: str) -> None:
    assert not explain_unloadable(_failure(module))
