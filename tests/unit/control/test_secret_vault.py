"""The keys of secrets: what is sealed opens as what it was, and nothing else does."""

import secrets
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control.core.rows import SEAL_BYTES, SecretRow
from control.front.secret_vault import KEY_BYTES, SecretVault, VaultError, key_id

VALUE = b"hunter2-never-shown"
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def vault(folder: Path) -> SecretVault:
    return SecretVault(folder / "secrets.keys", secrets.token_bytes)


def row(own: SecretVault, value: bytes = VALUE, version: int = 1) -> SecretRow:
    key, sealed = own.seal("lab", "token", version, value)
    return SecretRow("lab", "token", version, key, sealed, True, NOW, NOW)


def test_what_is_sealed_opens_after_a_restart(tmp_path: Path) -> None:
    kept = row(vault(tmp_path))
    assert vault(tmp_path).open(kept) == VALUE
    assert VALUE not in kept.sealed
    assert kept.size_bytes == len(VALUE) == len(kept.sealed) - SEAL_BYTES


def test_without_secrets_there_is_no_file(tmp_path: Path) -> None:
    own = vault(tmp_path)
    assert own.ids() == frozenset()
    assert not list(tmp_path.iterdir())
    row(own)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_equal_values_are_sealed_differently(tmp_path: Path) -> None:
    own = vault(tmp_path)
    assert row(own).sealed != row(own).sealed


@pytest.mark.parametrize(
    "moved",
    [{"namespace": "yard"}, {"name": "other"}, {"version": 2}, {"sealed": b""}],
    ids=["namespace", "name", "version", "cut"],
)
def test_a_row_that_was_moved_opens_nothing(tmp_path: Path, moved: dict[str, object]) -> None:
    own = vault(tmp_path)
    with pytest.raises(
        VaultError, match=r"does not open: its row of the store was changed"
    ) as told:
        own.open(replace(row(own), **moved))  # type: ignore[arg-type]
    assert VALUE.decode() not in str(told.value)


def test_a_changed_bit_opens_nothing(tmp_path: Path) -> None:
    own = vault(tmp_path)
    kept = row(own)
    for at in range(len(kept.sealed)):
        changed = bytearray(kept.sealed)
        changed[at] ^= 1
        with pytest.raises(VaultError):
            own.open(replace(kept, sealed=bytes(changed)))


def test_a_lost_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    kept = row(vault(tmp_path))
    (tmp_path / "secrets.keys").unlink()
    with pytest.raises(VaultError, match="bring that file back, or: shoal secret set token"):
        vault(tmp_path).open(kept)


def test_a_new_key_seals_and_the_old_one_opens_until_it_goes(tmp_path: Path) -> None:
    own = vault(tmp_path)
    old = row(own)
    new_id = own.add_key()
    assert own.sealing == new_id != old.key_id
    new = row(own)
    assert (own.open(old), own.open(new)) == (VALUE, VALUE)
    own.keep_keys({old.key_id})
    assert vault(tmp_path).open(old) == VALUE, "a row still names it"
    own.keep_keys({new_id})
    again = vault(tmp_path)
    assert again.open(new) == VALUE
    with pytest.raises(VaultError, match=f"sealed under key {old.key_id}"):
        again.open(old)


def test_a_key_that_cannot_be_written_seals_nothing(tmp_path: Path) -> None:
    own = SecretVault(tmp_path / "gone" / "secrets.keys", secrets.token_bytes)
    with pytest.raises(VaultError, match="cannot be written"):
        row(own)
    assert own.ids() == frozenset()


@pytest.mark.parametrize("text", ["abc\n", "0" * 63 + "\n", "Łódź\n", "0" * 64 + "\n\n"])
def test_a_damaged_file_is_refused_by_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets.keys").write_text(text, encoding="utf-8")
    with pytest.raises(VaultError, match=r"line \d of .* is no key of secrets"):
        vault(tmp_path)


def test_a_key_is_named_without_being_shown() -> None:
    key = secrets.token_bytes(KEY_BYTES)
    assert key_id(key) not in key.hex()
    assert len(key_id(key)) == 16
