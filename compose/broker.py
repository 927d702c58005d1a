"""A mosquitto broker for a local cluster, where the program is at hand."""

import getpass
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path


def find_mosquitto() -> str | None:
    """Path of the program, or None; Debian keeps it where only root's PATH looks."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def write_config(folder: Path, port: int) -> Path:
    """Write a configuration that keeps sessions in `folder` and listens on loopback only."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\n"
        "allow_anonymous true\n"
        # Started as root it would become a user that cannot read the folder.
        f"user {getpass.getuser()}\n"
        "persistence true\n"
        f"persistence_location {folder}/\n"
        "autosave_on_changes true\n"
        "autosave_interval 1\n"
    )
    return config


def command(program: str, config: Path) -> Sequence[str]:
    """The command that runs it in the foreground."""
    return (program, "-c", str(config))
