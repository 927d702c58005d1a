"""The file with the passwords of package indexes is checked before any build needs it."""

import logging
from pathlib import Path

import pytest

from edge_agent.environments.credentials import index_credentials
from services.runtime.process import StartRefusedError

LINE = "machine packages.example.org login robot password secret\n"


def test_builds_are_led_to_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "netrc"
    path.write_text(LINE)
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        assert index_credentials(path) == {"NETRC": str(path)}
        assert index_credentials(None) == {}
        assert not caplog.records
        path.chmod(0o644)
        index_credentials(path)
    assert "chmod 600" in caplog.text


def test_a_file_that_is_none_is_refused_without_what_stands_in_it(tmp_path: Path) -> None:
    with pytest.raises(StartRefusedError, match="No such file or directory; correct the path"):
        index_credentials(tmp_path / "absent")
    path = tmp_path / "netrc"
    path.write_text(LINE.strip() + " s3cr3t\n")
    with pytest.raises(StartRefusedError, match=r"line \d.*machine HOST login USER") as raised:
        index_credentials(path)
    assert "s3cr3t" not in str(raised.value)
