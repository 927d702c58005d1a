"""A mosquitto broker for a local cluster, where the program is at hand."""

import logging
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.runtime.log import fields

LOG = logging.getLogger(__name__)

_PORT_NAME: Final = "port"
"""File beside the configuration with the port of the broker's last start."""


def find_mosquitto() -> str | None:
    """Path of the program, or None; Debian keeps it where only root's PATH looks."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def kept_port(folder: Path) -> int:
    """Return a TCP port of 127.0.0.1 on which nothing listens now: that of the last time, if it can.

    Subscribers find the broker where it was before. Where another program has that port meanwhile,
    this says so and takes a new one, and keeps to that from then on.

    Raises:
        OSError: the folder cannot be written, or no port is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / _PORT_NAME
    before = _noted(note)
    if before and _is_free(before):
        return before
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    if before:
        LOG.warning(
            "another program has the broker's port: it has a new one from now on",
            extra=fields(before=before, port=port),
        )
    note.write_text(f"{port}\n")
    return port


def _noted(note: Path) -> int:
    try:
        port = int(note.read_text())
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 1 << 16 else 0


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def write_config(folder: Path, port: int) -> Path:
    """Write a configuration that keeps sessions in `folder` and listens on loopback only."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\n"
        "allow_anonymous true\n"
        # Started as root it would become a user that cannot read the folder; as another user it stays that one.
        f"{'user root' if os.geteuid() == 0 else ''}\n"
        "persistence true\n"
        f"persistence_location {folder}/\n"
        "autosave_on_changes true\n"
        "autosave_interval 1\n"
    )
    return config


def command(program: str, config: Path) -> Sequence[str]:
    """The command that runs it in the foreground."""
    return (program, "-c", str(config))
