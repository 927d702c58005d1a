"""What the lanes say where there is no docker that they can use."""

import os
from pathlib import Path

import pytest

from tests.kit.docker import HOST_VARIABLE, docker_daemon


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of those where programs are."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv(HOST_VARIABLE, f"unix://{tmp_path}/d.sock")
    return tmp_path


def _answering(folder: Path, words: str) -> None:
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{words}\n")
    program.chmod(0o755)


def test_no_docker_is_said(programs: Path) -> None:
    with (
        pytest.raises(pytest.fail.Exception, match="docker is not installed"),
        docker_daemon(str(programs)),
    ):
        pass


def test_an_old_docker_is_said_with_the_oldest_that_does(programs: Path) -> None:
    _answering(programs, "echo 19.03.15")
    with (
        pytest.raises(pytest.fail.Exception, match=r"docker 19\.03\.15 .* 20\.10"),
        docker_daemon(str(programs)),
    ):
        pass


def test_a_daemon_that_does_not_answer_is_said_with_its_address(programs: Path) -> None:
    _answering(programs, "exit 1")
    with (
        pytest.raises(pytest.fail.Exception, match=r"no docker daemon .*d\.sock"),
        docker_daemon(str(programs)),
    ):
        pass


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "28.2.2", "29.0.0-rc.1"])
def test_a_docker_that_does_is_taken(programs: Path, version: str) -> None:
    _answering(programs, f"echo {version}")
    with docker_daemon(str(programs)) as found:
        assert found.host == os.environ[HOST_VARIABLE]
