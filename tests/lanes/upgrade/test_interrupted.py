"""An installation that is killed in its middle: what is seen of it, and how it is repaired (docs/upgrade.md)."""

import signal
import subprocess
import sys
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
    with subprocess.Popen(pip(python, *map(str, wheels))) as installing:
        until_sync((packages / "shoal").exists, 60, "the first files of it")
        installing.send_signal(signal.SIGKILL)
    assert installing.returncode == -signal.SIGKILL
    assert says_its_version(link / "bin" / "python"), "what runs has not noticed"
    # Again from the beginning, then the link, in one step.
    subprocess.run(["rm", "-rf", new.parent], check=True)
    make_environment(new)
    subprocess.run(pip(python, *map(str, wheels)), check=True, timeout=240)
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
    with subprocess.Popen(again) as installing:
        # pip moves what it takes out aside, under names that begin with a tilde.
        until_sync(lambda: any(packages.glob("~*")), 60, "what is taken out")
        installing.send_signal(signal.SIGKILL)
    assert installing.returncode == -signal.SIGKILL
    subprocess.run(again, check=True, timeout=240)
    assert says_its_version(python)
    assert this_build().call("--version", folder=tmp_path).returncode == 0
