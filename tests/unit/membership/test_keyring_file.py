"""Keys in a file: what is read, what is refused without telling, and who wins."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.membership.keyring import Keyring
from services.membership.keyring_file import KeyringFile, KeyringFileError
from shoal.gossip_key import parse_key, write_key
from tests.kit.until import until

A, B, C = b"a" * 16, b"b" * 24, b"c" * 32


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([write_key(A), write_key(B)]),  # as Serf writes it
        f"{write_key(A)}\n{B.hex()}\n",
        f"  {A.hex().upper()} {write_key(B)} {write_key(A)}",
        "\ufeff" + json.dumps([write_key(A), write_key(B)]),  # K15: as some editors save it
        f"\ufeff{write_key(A)}\r\n{write_key(B)}\r\n",
    ],
)
def test_a_keyring_is_a_list_of_serf_or_one_key_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    assert KeyringFile(path).read() == (A, B)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("[]", "is empty"),
        ("[1]", "no array of strings"),
        ('["abc', "no JSON"),
        ("tomato", "a key of 6 characters"),
        (write_key(b"x" * 17), "a key of 24 characters"),
        ("\u00e9", "is not text"),
    ],
)
def test_what_is_no_keyring_is_refused_and_not_repeated(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(KeyringFileError, match=words) as caught:
        KeyringFile(path).read()
    assert str(path) in str(caught.value)
    assert not text or text not in str(caught.value).replace(str(path), "")


def test_a_missing_keyring_is_made_of_the_first_keys_and_wins_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(KeyringFileError, match="shoal keys generate"):
        KeyringFile(path).open(())
    assert KeyringFile(path).open((A,)) == (A,)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyringFile(path).open((B,)) == (A,)
    with pytest.raises(KeyringFileError, match="cannot be written"):
        KeyringFile(tmp_path / "none" / "keys").open((A,))


def test_a_keyring_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(write_key(A))
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        KeyringFile(path).read()
    assert "others may read" in caplog.text


def test_a_word_of_hexadecimal_digits_is_never_taken_for_base64() -> None:
    assert parse_key("0" * 32) == bytes(16)
    assert parse_key("ab" * 24) == b"\xab" * 24


@contextlib.asynccontextmanager
async def following(path: Path, ring: Keyring) -> AsyncIterator[asyncio.Event]:
    """Keep a ring and its file the same."""
    file = KeyringFile(path)
    file.open(ring.keys)
    rotated = asyncio.Event()
    task = asyncio.create_task(file.follow(ring, rotated))
    try:
        yield rotated
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_ring_and_file_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ring = Keyring([A])
    async with following(path, ring) as rotated:
        path.write_text(f"{write_key(B)}\n{write_key(A)}")
        await until(lambda: ring.keys == (B, A), 10, "what the file says")
        path.write_text(write_key(B))
        await until(lambda: ring.keys == (B,), 10, "the old key gone")
        ring.install(C)
        ring.use(C)
        rotated.set()
        await until(lambda: KeyringFile(path).read() == (C, B), 10, "what the cluster said")
        # What was told meanwhile wins over what somebody wrote.
        path.write_text(write_key(A))
        ring.remove(B)
        rotated.set()
        await until(lambda: KeyringFile(path).read() == (C,), 10, "the ring in the file")
        assert ring.keys == (C,)


@pytest.mark.parametrize(
    ("before", "then", "after"),
    [
        ((A,), (C, B, A), (C, B, A)),
        ((A, B), (B,), (B,)),
        ((), (A, B), (A, B)),
        ((A, B), (C,), (C,)),
    ],
)
def test_a_ring_becomes_another_one(
    before: tuple[bytes, ...], then: tuple[bytes, ...], after: tuple[bytes, ...]
) -> None:
    ring = Keyring(before)
    ring.replace(then)
    assert ring.keys == after


@pytest.mark.parametrize("wrong", [(), (C, b"short")])
def test_a_ring_stays_as_it_was_if_it_cannot_become_another_one(wrong: tuple[bytes, ...]) -> None:
    ring = Keyring((A,))
    with pytest.raises(ValueError, match=r"no keys|has 5 bytes"):
        ring.replace(wrong)
    assert ring.keys == (A,)


async def test_a_broken_file_changes_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    ring = Keyring([A])
    async with following(path, ring):
        path.write_text("broken")
        await until(lambda: "keyring not kept" in caplog.text, 10, "the complaint")
        path.unlink()  # not there is no reason to forget
        path.write_text(write_key(B))
        await until(lambda: ring.keys == (B,), 10, "the repaired file")
    assert caplog.text.count("keyring not kept") == 1
