"""Refused messages become files: whole, once each, and not without bound."""

import json
from pathlib import Path

import pytest

from services.intake.dead_letter_folder import FILES_MAX, DeadLetterFolder
from services.intake.message import IncomingMessage, MessageKind
from services.intake.source import ServerAwayError

MESSAGE = IncomingMessage("mqtt:tasks/#", MessageKind.TASK, "m", b'{"a"', "r")


async def test_a_letter_has_body_and_reason_and_is_written_once(tmp_path: Path) -> None:
    folder = DeadLetterFolder(tmp_path / "dead", lambda: 0.0)
    for _ in range(2):
        await folder.bury(MESSAGE, 5, "it is no JSON")
    [path] = (tmp_path / "dead").iterdir()
    assert json.loads(path.read_text()) == {
        "time": "1970-01-01T00:00:00Z",
        "source": "mqtt:tasks/#",
        "id": "m",
        "tries": 5,
        "reason": "it is no JSON",
        "body": '{"a"',
    }
    assert path.stat().st_mode & 0o077 == 0


async def test_bytes_that_are_no_text_are_kept(tmp_path: Path) -> None:
    folder = DeadLetterFolder(tmp_path, lambda: 0.0)
    await folder.bury(IncomingMessage("s", MessageKind.TASK, "m", b"\xff"), 5, "no text")
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_text())["body_base64"] == "/w=="


async def test_a_full_folder_keeps_messages_with_their_source(tmp_path: Path) -> None:
    folder = DeadLetterFolder(tmp_path, lambda: 0.0)
    for number in range(FILES_MAX):
        (tmp_path / str(number)).touch()
    with pytest.raises(ServerAwayError, match="delete them"):
        await folder.bury(MESSAGE, 5, "reason")
    (tmp_path / "0").unlink()
    await folder.bury(MESSAGE, 5, "reason")


async def test_a_folder_that_cannot_be_made_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = DeadLetterFolder(tmp_path / "file" / "dead", lambda: 0.0)
    with pytest.raises(ServerAwayError, match="cannot be written"):
        await folder.bury(MESSAGE, 5, "reason")
