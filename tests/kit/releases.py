"""The releases of this project, by the commits that they were made of."""

import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.kit.tree import ROOT

RELEASES = ROOT / "tests" / "releases.toml"


@dataclass(frozen=True, slots=True)
class Release:
    """A release and the commit that it was made of."""

    version: str
    commit: str


def releases(path: Path = RELEASES) -> tuple[Release, ...]:
    """All releases, oldest first.

    Raises:
        AssertionError: the file names none.
    """
    named: dict[str, str] = tomllib.loads(path.read_text()).get("releases", {})
    assert named, f'{path} names no release: write `"0.1.0" = "COMMIT"` below [releases]'
    return tuple(Release(one, named[one]) for one in sorted(named, key=_number))


def newest_release(path: Path = RELEASES) -> Release:
    """The newest release, whose commit is in this clone.

    Raises:
        AssertionError: there is none, or its commit is not here.
    """
    newest = releases(path)[-1]
    check_commit(newest.commit, f"release {newest.version} in {path.name}")
    return newest


def check_commit(commit: str, what: str) -> None:
    """Find a commit in this clone.

    Raises:
        AssertionError: it is not here, as in a shallow clone.
    """
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, (
        f"the commit {commit} of {what} is not in this clone: `git fetch --unshallow origin` brings it into a shallow "
        "one, `git fetch origin` into one that is behind"
    )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
