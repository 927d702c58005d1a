"""What a stream worker makes of a keeper that does not hand over the ports of an attempt."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.streams.worker.keeper_ports import KeeperAwayError, fetch_ports


def test_a_keeper_that_is_gone_is_named_as_away(tmp_path: Path) -> None:
    """The agent takes the attempt for lost then, and not for failed: its program went, too."""
    with pytest.raises(KeeperAwayError, match=r"keeper\.sock does not hand over the ports of a"):
        fetch_ports(str(tmp_path / "keeper.sock"), "a")


def test_a_keeper_that_hung_up_is_away(tmp_path: Path) -> None:
    path = str(tmp_path / "keeper.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        listener.shutdown(socket.SHUT_RDWR)
        with pytest.raises(KeeperAwayError):
            fetch_ports(path, "a")
