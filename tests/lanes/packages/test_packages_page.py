"""`docs/packages.md` is carried out as it stands, with a release and nothing else of Shoal."""

import csv
import json
import logging
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import pytest

from tests.kit.document_blocks import Block, blocks
from tests.kit.release import FreshMachine, copy_examples
from tests.kit.tree import ROOT

PAGE: Final = ROOT / "docs" / "packages.md"
LOG: Final = logging.getLogger("packages")
_FRAMES: Final = 100
_OURS: Final = ("compose", "control", "edge_agent", "services", "shoal")


@pytest.mark.timeout(900)
def test_u3_the_page_about_packages_is_carried_out(release: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="shoal-") as short:  # paths of sockets are short
        top = Path(short)
        folder = top / "release"
        shutil.copytree(release, folder)
        examples = copy_examples(top / "examples")
        first = FreshMachine(top / "first")
        first.prepare()
        try:
            for number, block in enumerate(blocks(PAGE)):
                where = folder if "release" in block.where else examples
                machine = first
                if "another machine" in block.where:
                    machine = FreshMachine(top / str(number))
                    machine.prepare()
                if "not in CI" not in block.where:
                    _carry_out(block, machine, where)
        finally:
            first.run("shoal down try || true", examples)
        _check_installed(first, top)
        _check_described(first, release)
        _check_counted(examples / "counted" / "counter" / "results" / "people.csv")


def _carry_out(block: Block, machine: FreshMachine, where: Path) -> None:
    LOG.info("# %s: %s\n%s", block.section, block.where, block.commands)
    begin = time.monotonic()
    status, said = machine.run(block.commands, where)
    assert status == 0, f"{block.commands}\nended with {status} and said:\n{said}"
    missing = block.missing(said)
    assert not missing, f"{block.commands}\ndid not print {missing} but:\n{said}"
    if "shoal --version" in block.commands:
        assert f"commit {_head()[:12]}" in said
    LOG.info("printed\n%s\nwithin %.1f s", said, time.monotonic() - begin)


def _head() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return found.stdout.decode().strip()


def _check_installed(machine: FreshMachine, folder: Path) -> None:
    """All that ran came out of the wheels, and the checkout was on no path."""
    tool = machine.home / ".local" / "share" / "uv" / "tools" / "shoal-server"
    files = ", ".join(f"{name}.__file__" for name in _OURS)
    asked = f"import {', '.join(_OURS)}, sys; print({files}, *sys.path, sep=chr(10))"
    status, said = machine.run(f'{tool}/bin/python -c "{asked}"', folder)
    assert status == 0, said
    modules, path = said.splitlines()[: len(_OURS)], said.splitlines()[len(_OURS) :]
    assert [name for name in modules if not name.startswith(f"{tool}/")] == []
    assert [name for name in path if Path(name).is_relative_to(ROOT)] == []


def _check_described(machine: FreshMachine, release: Path) -> None:
    """The SBOM names what `uv tool install` has installed, all of it and nothing else."""
    tool = machine.home / ".local" / "share" / "uv" / "tools" / "shoal-server"
    status, said = machine.run(f"uv pip list --quiet --python {tool} --format json", release)
    assert status == 0, said
    sbom = json.loads((release / "shoal.cdx.json").read_text(encoding="utf-8"))
    described = {(_normal(one["name"]), one["version"]) for one in sbom["components"]}
    assert described == {(_normal(one["name"]), one["version"]) for one in json.loads(said)}
    assert {"shoal", "shoal-server", "grpcio", "uvloop"} <= {name for name, _ in described}


def _normal(name: str) -> str:
    """Return the name of a distribution as PEP 503 compares it."""
    return re.sub("[-_.]+", "-", name).lower()


def _check_counted(table: Path) -> None:
    """No frame is missing and none is there twice, and there were people."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == [str(number) for number in range(_FRAMES)]
    assert sum(int(row["people"]) for row in rows) > _FRAMES
