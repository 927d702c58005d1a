"""Signed addresses."""

from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from services.archive.signature import (
    PATH_PREFIX,
    PathSigner,
    SignatureRefusedError,
    SignedPut,
)

SIGNER = PathSigner("http://127.0.0.1:1", b"0123456789abcdef")
PUT = SignedPut(5, "ab" * 32)


def taken_apart(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    return unquote(parts.path).removeprefix(PATH_PREFIX), dict(parse_qsl(parts.query))


def test_an_address_is_recognised_until_it_expires() -> None:
    key, query = taken_apart(SIGNER.put_url("ns/a b/ü", PUT, 100))
    assert key == "ns/a b/ü"
    assert SIGNER.check_put(key, query, 99.9) == PUT
    with pytest.raises(SignatureRefusedError, match="expired"):
        SIGNER.check_put(key, query, 100)


@pytest.mark.parametrize(
    "change", [{"size": "6"}, {"sha256": "cd" * 32}, {"expires": "999"}, {"signature": "ü"}]
)
def test_a_changed_address_is_refused(change: dict[str, str]) -> None:
    key, query = taken_apart(SIGNER.put_url("k", PUT, 100))
    with pytest.raises(SignatureRefusedError, match="wrong"):
        SIGNER.check_put(key, {**query, **change}, 1)


def test_an_address_is_good_for_its_key_and_method_only() -> None:
    key, query = taken_apart(SIGNER.get_url("k", 100))
    SIGNER.check_get(key, query, 1)
    with pytest.raises(SignatureRefusedError):
        SIGNER.check_get("other", query, 1)
    with pytest.raises(SignatureRefusedError, match="not signed for PUT"):
        SIGNER.check_put(key, query, 1)
    with pytest.raises(SignatureRefusedError, match="not signed for GET"):
        SIGNER.check_get(key, {}, 1)


def test_another_secret_makes_other_addresses() -> None:
    other = PathSigner("http://127.0.0.1:1", b"another secret, as long")
    key, query = taken_apart(other.get_url("k", 100))
    with pytest.raises(SignatureRefusedError):
        SIGNER.check_get(key, query, 1)
    with pytest.raises(ValueError, match="at least 16"):
        PathSigner("http://127.0.0.1:1", b"short")


def test_k6_a_key_with_a_line_break_is_no_other_address() -> None:
    key, query = taken_apart(SIGNER.get_url("k\nexpires=100", 100))
    SIGNER.check_get(key, query, 1)
    with pytest.raises(SignatureRefusedError, match="wrong"):
        SIGNER.check_get("k", {**query, "expires": "100\nexpires=100"}, 1)
