"""An installation that is killed in its middle: what is seen of it, and how it is repaired (docs/upgrade.md)."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.kit.builds import Build, build_of, make_environment, this_build
from tests.kit.releases import newest_release
from tests.kit.until import until_sync
from tests.kit.wheels import build_wheels


def pip(python: Path, *words: str) -> list[str]:
    """An installation by pip, as people call it, without a network."""
    into = [
        "--python",
        str(python),
        "install",
        "--no-index",
        "--no-deps",
        "--quiet",
        "--no-compile",
    ]
    return [sys.executable, "-m", "pip", *into, *words]


def kill_in_its_middle(command: list[str], reached: Callable[[], bool], what: str) -> None:
    """Start an installation and kill all of it: `pip --python` works in a process of its own below the first."""
    with subprocess.Popen(command, start_new_session=True) as installing:
        until_sync(reached, 60, what)
        os.killpg(installing.pid, signal.SIGKILL)
    assert installing.returncode == -signal.SIGKILL
    until_sync(lambda: not _lives(installing.pid), 30, "the end of all of its processes")


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def says_its_version(python: Path) -> bool:
    """Whether the program runs at all."""
    return Build("", python).call("--version", folder=python.parent).returncode == 0


def test_one_into_a_folder_of_its_own_changes_nothing_until_the_link_is_switched(
    tmp_path: Path,
) -> None:
    """The layout of the manuals: /opt/shoal/VERSION/venv, and the link /opt/shoal/venv."""
    release = newest_release()
    build_of(release.commit, tmp_path / release.version / "venv", release.version)
    link = tmp_path / "venv"
    link.symlink_to(f"{release.version}/venv")
    wheels = build_wheels("HEAD", tmp_path / "wheels")
    new = tmp_path / "new" / "venv"
    make_environment(new)
    python = new / "bin" / "python"
    packages = next((new / "lib").glob("python*/site-packages"))
    install = pip(python, *map(str, wheels))
    kill_in_its_middle(install, (packages / "shoal").exists, "the first files of it")
    assert says_its_version(link / "bin" / "python"), "what runs has not noticed"
    # Again from the beginning, then the link, in one step.
    subprocess.run(["rm", "-rf", new.parent], check=True)
    make_environment(new)
    subprocess.run(install, check=True, timeout=240)
    (tmp_path / "venv.new").symlink_to("new/venv")
    (tmp_path / "venv.new").replace(link)
    assert says_its_version(link / "bin" / "python")
    assert link.resolve() == new


def test_one_in_place_is_repaired_by_installing_again(tmp_path: Path) -> None:
    release = newest_release()
    build_of(release.commit, tmp_path / "venv", release.version)
    python = tmp_path / "venv" / "bin" / "python"
    packages = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    wheels = [str(one) for one in build_wheels("HEAD", tmp_path / "wheels")]
    again = pip(python, "--force-reinstall", *wheels)
    # pip moves what it takes out aside, under names that begin with a tilde.
    kill_in_its_middle(again, lambda: any(packages.glob("~*")), "what is taken out")
    subprocess.run(again, check=True, timeout=240)
    assert says_its_version(python)
    assert this_build().call("--version", folder=tmp_path).returncode == 0
