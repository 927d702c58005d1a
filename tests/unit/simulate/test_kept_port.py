"""B13: the broker of `shoal up` is found where it was."""

import logging
import socket
from pathlib import Path

import pytest

from compose.broker import kept_port


def test_b13_a_broker_keeps_its_port_unless_another_program_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "mosquitto"
    first = kept_port(folder)
    assert kept_port(folder) == first
    with (
        caplog.at_level(logging.WARNING),
        socket.create_server(("127.0.0.1", first)),
    ):
        second = kept_port(folder)
        assert second != first
        assert kept_port(folder) == second
    assert [record.getMessage() for record in caplog.records] == [
        "another program has the broker's port: it has a new one from now on"
    ]
    assert kept_port(folder) == second


@pytest.mark.parametrize("text", ["", "none", "-1", "0", "65536", "99999999999"])
def test_b13_a_damaged_note_of_the_port_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "port").write_text(text)
    found = kept_port(tmp_path)
    assert 0 < found < 65536
    assert kept_port(tmp_path) == found
