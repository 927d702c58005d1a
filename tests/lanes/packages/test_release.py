"""What a release consists of: the same each time, complete, and described as it is."""

import subprocess
import zipfile
from pathlib import Path
from typing import Final

from tests.kit.release import TOOLS
from tests.kit.tree import ROOT
from tests.kit.wheels import build_wheels

_PARTS: Final = {
    "shoal": ("sdk/", ("shoal",)),
    "shoal_server": ("", ("compose", "control", "edge_agent", "services")),
}
"""Of each wheel: from where its names count, and its packages."""
_VALIDATE: Final = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))
"""


def test_two_builds_of_a_commit_are_the_same_to_the_byte(release: Path, tmp_path: Path) -> None:
    for again in build_wheels("HEAD", tmp_path / "again"):
        assert again.read_bytes() == (release / again.name).read_bytes(), again.name


def test_wheels_hold_all_that_is_tracked_and_nothing_else(release: Path) -> None:
    for distribution, (root, packages) in _PARTS.items():
        (wheel,) = release.glob(f"{distribution}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        described = {name for name in names if ".dist-info/" in name}
        tree = _git("ls-tree", "-r", "--name-only", "HEAD", *(f"{root}{name}" for name in packages))
        assert names - described == {name.removeprefix(root) for name in tree.splitlines()}
        assert {f"{name}/py.typed" for name in packages} <= names
        assert [name for name in described if name.endswith("/licenses/LICENSE")] != []
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = (name for name in described if name.endswith("/METADATA"))
            text = archive.read(metadata).decode()
        assert "Requires-Python: >=3.11\n" in text
        assert "License-Expression: Apache-2.0\n" in text
        assert "\n# " in text, "it has no README"


def test_a_server_wants_the_client_of_its_own_version(release: Path) -> None:
    (wheel,) = release.glob("shoal_server-*.whl")
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"shoal_server-{version}.dist-info/METADATA").decode()
    assert f"Requires-Dist: shoal=={version}\n" in text


def test_the_sbom_is_valid_and_says_nothing_of_the_machine(release: Path) -> None:
    """That it is what `uv tool install` installs is seen where the page is carried out."""
    text = (release / "shoal.cdx.json").read_text(encoding="utf-8")
    assert "file:" not in text
    validated = subprocess.run(
        [TOOLS / "python", "-c", _VALIDATE],
        input=text,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    assert validated.stdout.strip() == "None"


def _git(*words: str) -> str:
    said = subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return said.stdout
