"""The worker's command line: what it takes, and what it refuses with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime.process import StartRefusedError
from services.streams.worker.__main__ import settings_from

SOCKET = ["--socket", "/run/w.sock"]


def test_it_takes_a_socket_and_an_address() -> None:
    settings = settings_from([*SOCKET, "--listen", "10.0.0.7:0"])
    assert settings.socket == Path("/run/w.sock")
    assert (settings.listen, settings.advertise) == ("10.0.0.7:0", "10.0.0.7")


def test_it_may_listen_everywhere_and_say_where_it_is_found() -> None:
    settings = settings_from([*SOCKET, "--listen", ":7001", "--advertise", "board-3"])
    assert (settings.listen, settings.advertise) == ("0.0.0.0:7001", "board-3")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*SOCKET, "--listen", "nowhere"], "is not HOST:PORT"),
        ([*SOCKET, "--listen", "0.0.0.0:0"], "add --advertise HOST"),
        (["--socket", "/" + "x" * 107, "--listen", "a:0"], "use a shorter path"),
        ([*SOCKET, "--listen", "a:0", "--memory-bytes", "0"], "has to be above 0"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(arguments: list[str], words: str) -> None:
    with pytest.raises(StartRefusedError, match=words):
        settings_from(arguments)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings_from(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--advertise" in shown
    assert "example:" in shown
