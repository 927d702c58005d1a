"""What an operator may set."""

from pathlib import Path
from typing import Any

import pytest

from control.config import ControllerConfig, neighbour
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
        {"objects_url": "10.0.0.9:9000"},
        {"objects_url": "s3://b"},
        {"objects_url": "http://:9000"},
        {"objects_url": "http://h:0"},
        {"objects_url": "http://h:99999"},
        {"objects_url": "http://h/there"},
        {"objects_url": "http://h?x=1"},
        {"objects_url": "http://me:secret@h"},
        {"objects_url": "http://[::1"},
        {"objects_url": "http://h:9000#"},
        {"objects_url": "http://h:9000/?"},
        {"objects_url": " http://h:9000"},
        {"objects_url": "http://h:9000\n"},
        {"objects_url": "http://a b:9000"},
        {"objects_url": "http://h%20:9000"},
        {"objects_url": "http://h\\there:9000"},
        {"objects_url": "http://*:9000"},
        {"objects_url": "http://-:9000"},
        {"objects_url": "http://.:9000"},
        {"objects_url": "http://10.0.0.300:9000"},
        {"objects_url": "http://0.0.0.0:9000"},
        {"objects_url": "http://[::]:9000"},
        {"seeds": ("here",)},
        {"archive": "ftp://x"},
        {"broker": "http://x"},
        {"broker_password_file": STATE / "password"},
        {"broker": "mqtt://h", "broker_password_file": STATE / "password"},
        {"lease_seconds": 1.0, "heartbeat_seconds": 1.0},
        {"heartbeat_seconds": 0.0},
        {"unplaced_seconds": 0.0},
        {"still_seconds": float("inf")},
        {"still_seconds": float("nan")},
        {"url_expires_seconds": 8 * 24 * 3600},
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ControllerConfig(state=STATE, **setting)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({}, ""),
        ({"grpc": "10.9.0.1:7470"}, "--gossip 127.0.0.1:7946, --objects 127.0.0.1:7471"),
        ({"grpc": "0.0.0.0:7470", "gossip": ""}, "--objects 127.0.0.1:7471"),
        ({"grpc": "pi:1", "gossip": "[::1]:2", "archive": "s3://b"}, "--gossip [::1]:2"),
        ({"grpc": "pi:1", "gossip": "pi:2", "objects": "localhost:3"}, "--objects localhost:3"),
        ({"grpc": "pi:1", "gossip": "pi:2", "objects": "0.0.0.0:3"}, ""),
        ({"grpc": "pi:1", "gossip": "pi:2", "objects_url": "https://pi:7471"}, ""),
        ({"grpc": "pi:1", "gossip": "", "objects_url": "http://[::1]:9"}, "--objects-url [::1]:9"),
        (
            {"grpc": "pi:1", "gossip": "", "objects_url": "http://127.0.0.1"},
            "--objects-url 127.0.0.1",
        ),
    ],
)
def test_u2_what_others_cannot_reach_is_known(setting: dict[str, Any], said: str) -> None:
    assert ControllerConfig(state=STATE, **setting).unreachable == said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"insecure": True}, ""),
        ({"grpc": "0.0.0.0:7470", "objects": "0.0.0.0:7471"}, ""),
        ({"insecure": True, "grpc": "0.0.0.0:7470"}, "--grpc 0.0.0.0:7470"),
        ({"insecure": True, "gossip": "pi:7946"}, "--gossip pi:7946"),
        ({"insecure": True, "gossip": "pi:7946", "gossip_keys": (b"0" * 16,)}, ""),
        ({"insecure": True, "objects": "pi:1", "archive": "s3://b"}, ""),
    ],
)
def test_what_strangers_can_reach_without_proof_is_known(
    setting: dict[str, Any], said: str
) -> None:
    assert ControllerConfig(state=STATE, **setting).exposed == said


def test_u2_a_port_beside_another_address() -> None:
    assert neighbour("10.9.0.1:7470", 7471) == "10.9.0.1:7471"
    assert neighbour("[::]:7470", 7471) == "[::]:7471"
    assert neighbour("nothing", 7471) == "nothing"


def test_a_password_is_not_in_what_is_said() -> None:
    with pytest.raises(ConfigError) as error:
        ControllerConfig(state=STATE, broker="mqtt://me:secret@h/x")
    assert "secret" not in str(error.value)
