"""What an operator may set."""

from pathlib import Path
from typing import Any

import pytest

from control.config import ControllerConfig
from services.membership.settings import ConfigError

STATE = Path("/var/lib/shoal")


def test_the_archive_is_a_folder_of_the_state_unless_said() -> None:
    assert ControllerConfig(state=STATE).archive_url == "file:///var/lib/shoal/archive"
    assert ControllerConfig(state=STATE, archive="s3://b").archive_url == "s3://b"


@pytest.mark.parametrize(
    "setting",
    [
        {"name": "A B"},
        {"grpc": "x"},
        {"grpc": ":7470"},
        {"gossip": "h:p"},
        {"objects": "h:99999"},
        {"seeds": ("here",)},
        {"archive": "ftp://x"},
        {"broker": "http://x"},
        {"broker_password": "s3cret"},
        {"broker": "mqtt://h", "broker_password": "s3cret"},
        {"lease_seconds": 1.0, "heartbeat_seconds": 1.0},
        {"heartbeat_seconds": 0.0},
        {"url_expires_seconds": 8 * 24 * 3600},
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ControllerConfig(state=STATE, **setting)


def test_a_password_is_not_in_what_is_said() -> None:
    with pytest.raises(ConfigError) as error:
        ControllerConfig(state=STATE, broker="mqtt://me:secret@h/x")
    assert "secret" not in str(error.value)
