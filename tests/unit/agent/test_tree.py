"""What lies in a folder of the agent's own."""

import logging
from pathlib import Path

import pytest

from edge_agent.tree import children


def test_a_folder_that_cannot_be_read_counts_as_empty_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert children(tmp_path / "missing") == []
        assert caplog.messages == []
        (tmp_path / "file").touch()
        assert children(tmp_path / "file") == []
    assert caplog.messages == ["a folder counts as empty"]
    assert children(tmp_path) == [tmp_path / "file"]
