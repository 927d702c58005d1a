"""What is sealed on a board opens there, for whom it was sealed, and nowhere else."""

import os
from pathlib import Path

import pytest

from edge_agent.secrets.secret_seal import SealError, SecretSeal

SECRETS = {"lab-token": b"correct horse", "key": bytes(range(256))}


def test_secrets_open_again_after_a_restart_and_are_not_in_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    sealed = SecretSeal(path).close(SECRETS, "default/p/a")
    assert b"correct" not in sealed
    assert b"lab-token" not in sealed
    assert path.stat().st_mode & 0o777 == 0o600
    assert SecretSeal(path).open(sealed, "default/p/a") == SECRETS
    assert SecretSeal(path).close(SECRETS, "default/p/a") != sealed


def test_where_there_are_no_secrets_there_is_no_key(tmp_path: Path) -> None:
    seal = SecretSeal(tmp_path / "secrets.key")
    assert seal.close({}, "a") == b""
    assert seal.open(b"", "a") == {}
    assert os.listdir(tmp_path) == []


def test_what_is_not_ours_is_not_opened(tmp_path: Path) -> None:
    seal = SecretSeal(tmp_path / "secrets.key")
    sealed = seal.close(SECRETS, "default/p/a")
    with pytest.raises(SealError, match="default/p/b"):
        seal.open(sealed, "default/p/b")
    with pytest.raises(SealError, match="put the right key back"):
        seal.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), "default/p/a")
    with pytest.raises(SealError, match="later version"):
        seal.open(b"\x02" + sealed[1:], "default/p/a")
    for cut in range(1, 20):
        with pytest.raises(SealError):
            seal.open(sealed[:cut], "default/p/a")
    with pytest.raises(SealError, match="is not there any more"):
        SecretSeal(tmp_path / "other.key").open(sealed, "default/p/a")


def test_a_damaged_key_is_put_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secrets.key"
    sealed = SecretSeal(path).close(SECRETS, "a")
    path.write_bytes(b"half")
    again = SecretSeal(path)
    with pytest.raises(SealError, match="is not there any more"):
        again.open(sealed, "a")
    assert again.open(again.close(SECRETS, "b"), "b") == SECRETS
    assert (tmp_path / "secrets.damaged").read_bytes() == b"half"
    assert "damaged" in caplog.text
