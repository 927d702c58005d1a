"""A user without a home folder, as in a container whose user is a mere number."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.kit.programs import program, unavailable

_USER: Final = "12345"
_SHOAL: Final = (sys.executable, "-m", "shoal.cli")


def _without_home(*words: str) -> subprocess.CompletedProcess[str]:
    """Run as a user of whom the system knows nothing, with the rights of the one that runs the test."""
    enter = (program("unshare"), f"--map-user={_USER}", f"--map-group={_USER}")
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        unavailable("namespaces of users are forbidden here")
    return _shoal(*words, enter=enter, variables={})


def _shoal(
    *words: str, enter: tuple[str, ...] = (), variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"HOME", "XDG_STATE_HOME"} and not name.startswith("SHOAL_")
    }
    return subprocess.run(
        [*enter, *_SHOAL, *words],
        env={**kept, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("words", ["--help", "--version", "agent --help", "up --help", "down"])
def test_what_needs_no_home_works_without_one(words: str) -> None:
    ended = _without_home(*words.split())
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("up", "set HOME, or XDG_STATE_HOME, to a folder"),
        ("up --detach", "set HOME, or XDG_STATE_HOME, to a folder"),
        ("controller", "set HOME, or name a folder that it may write, such as --state"),
        ("agent --controller 127.0.0.1:1", "set HOME, or name a folder that it may write"),
        ("agent --state absent --gossip-keyring ~/keys", "such as --gossip-keyring"),
        ("nodes --controller 127.0.0.1:1 --identity ~/me", "set HOME, or XDG_STATE_HOME"),
    ],
)
def test_what_needs_one_says_how_to_name_it(words: str, remedy: str) -> None:
    ended = _without_home(*words.split())
    assert ended.returncode in {1, 2}
    assert "user has no home folder" in ended.stdout
    assert remedy in ended.stdout
    assert "Traceback" not in ended.stdout


def test_a_command_goes_on_to_the_controller_that_it_is_told() -> None:
    ended = _without_home("nodes", "--controller", "127.0.0.1:1")
    assert "no controller answers at 127.0.0.1:1" in ended.stdout


@pytest.mark.parametrize(
    ("words", "status", "remedy"),
    [
        ("--help", 0, "Start a cluster on this machine"),
        ("down", 0, "no cluster of `shoal up` runs here"),
        ("nodes --controller 127.0.0.1:1", 1, "no controller answers at 127.0.0.1:1"),
        ("up", 2, "set XDG_STATE_HOME to a folder"),
        ("up --detach", 2, "choose another --state"),
        ("controller", 2, "choose another --state"),
        ("agent --controller 127.0.0.1:1", 2, "choose another --state"),
    ],
)
def test_a_home_that_takes_nothing_is_told(words: str, status: int, remedy: str) -> None:
    """As one on a disk that is read-only; /proc takes no folder from any user."""
    ended = _shoal(*words.split(), variables={"HOME": "/proc/sys"})
    assert ended.returncode == status, ended.stdout
    assert remedy in ended.stdout
    assert "Traceback" not in ended.stdout


def test_a_cluster_runs_where_a_folder_is_named(tmp_path: Path) -> None:
    """As the user of a service, whose home is not there."""
    here = {"HOME": "/proc/absent", "XDG_STATE_HOME": str(tmp_path), "SHOAL_CLUSTER": "no-home"}
    up = ("up", "--detach", "--name", "no-home", "--agents", "1", "--mqtt", "none", "--insecure")
    started = _shoal(*up, variables=here)
    try:
        assert started.returncode == 0, started.stdout
        # The environment is built by uv, which wants a home of its own.
        ran = _shoal("run", "--", "python", "-c", "print('no', 'home')", variables=here)
        assert ran.returncode == 0, ran.stdout
        assert "no home" in ran.stdout
    finally:
        _shoal("down", "no-home", variables=here)
