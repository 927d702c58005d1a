"""Values of secrets are hidden in what a program printed, and nothing moves by it."""

import base64
import json
import os
import random
from pathlib import Path
from urllib.parse import quote

import pytest

from edge_agent.long_work import done_at_once
from edge_agent.secrets.masked_file import mask_file
from edge_agent.secrets.secret_mask import SecretMask
from edge_agent.tree import NoPlainFileError
from edge_agent.uploads.collect import collect
from shoal.names import AttemptRef

VALUE = b"p\xc3\xa4ss/w\"ord+'1\\x"
TEXT = VALUE.decode()
KEY = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
MASK = SecretMask([VALUE, KEY])
REF = AttemptRef("default", "p", "a", 1, 1)


@pytest.mark.parametrize(
    "printed",
    [
        VALUE,
        b"token=" + VALUE + b" and " + VALUE,
        VALUE.hex().encode(),
        base64.b64encode(VALUE),
        base64.urlsafe_b64encode(VALUE),
        quote(VALUE, safe="").encode(),
        quote(VALUE).encode(),
        json.dumps({"token": TEXT}).encode(),
        json.dumps({"token": TEXT}, ensure_ascii=False).encode(),
        repr({"token": TEXT}).encode(),
        repr([VALUE]).encode(),
        repr(KEY.decode()).encode(),
        KEY,
        b"  MIIEvQIBADANBgkq\r\n",
        base64.encodebytes(KEY),
    ],
)
def test_a_value_is_hidden_as_programs_write_it_and_what_is_behind_it_stays(printed: bytes) -> None:
    said = b"before " + printed + b" behind"
    hidden = MASK.hide(said)
    assert len(hidden) == len(said)
    assert hidden.startswith(b"before ")
    assert hidden.endswith(b" behind")
    assert b"*" in hidden
    for part in (VALUE, b"MIIEvQIBADANBgkq", b"hkiG9w0BAQEFAASC", VALUE.hex().encode()):
        assert part not in hidden
    assert MASK.hide(hidden) == hidden
    assert hidden.count(b"\n") == said.count(b"\n")


@pytest.mark.parametrize("before", ["", "a", "me", "you", "user"])
def test_a_value_within_base64_is_hidden_at_each_alignment(before: str) -> None:
    """But for the characters that hold bits of its neighbours, too."""
    value = b"correct horse battery staple"
    said = base64.b64encode(before.encode() + b":" + value + b"!")
    hidden = SecretMask([value]).hide(said)
    left = hidden.replace(b"*", b"")
    assert hidden.count(b"*") >= len(value) * 8 // 6 - 2
    assert len(left) <= len(base64.b64encode(before.encode() + b":!")) + 4


def test_short_values_are_shown_and_values_that_overlap_are_not() -> None:
    assert not SecretMask([b"abc", b" x \n"])
    mask = SecretMask([b"aaaa", b"aabb"])
    assert mask.hide(b"xaaaaaabbx") == b"x********x"
    assert list(SecretMask([b"wxyz"]).spans(b"wxyzwxyz")) == [(0, 4), (4, 8)]


def test_words_have_three_stars_whatever_the_length() -> None:
    assert MASK.text(f"login with {TEXT!r} and {TEXT} failed") == "login with '***' and *** failed"
    assert MASK.text("nothing") == "nothing"


def test_where_a_value_is_not_known_nothing_is_shown() -> None:
    mask = SecretMask([b"known"], unknown=True)
    assert mask.hide(b"a\nbc") == b"*\n**"
    assert mask.text("anything") == "***"
    assert mask.text("") == ""


def test_what_may_begin_a_value_is_held_and_hidden_at_an_end() -> None:
    mask = SecretMask([b"correct horse"])
    assert mask.held(b"say correct h") == 9
    assert mask.held(b"say correct horse") == 0
    assert mask.held(b"say corcor") == 3
    assert mask.hide(b"say correct h", ended=True) == b"say *********"
    assert mask.hide(b"say corr", ended=False) == b"say corr"


def test_a_file_is_hidden_in_across_the_borders_of_its_chunks(tmp_path: Path) -> None:
    rng = random.Random(7)
    path = tmp_path / "stdout"
    for _ in range(200):
        said = b"".join(
            rng.choice([VALUE, b"\n", b"x" * rng.randrange(90), VALUE[:5]]) for _ in range(9)
        )
        path.write_bytes(said)
        os.utime(path, (1_000, 2_000))
        done_at_once(mask_file(path, MASK, 64))
        assert path.read_bytes() == MASK.hide(said, ended=True)
        assert VALUE not in path.read_bytes()
        assert path.stat().st_mtime == 2_000
        assert os.listdir(tmp_path) == ["stdout"]


def test_a_log_is_replaced_in_one_step_and_only_if_it_has_secrets(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(b"x" * 200 + VALUE + b"y" * 200)
    with path.open("rb") as before:
        steps = mask_file(path, MASK, 64)
        for _ in range(6):
            next(steps)
            assert path.read_bytes() == before.read()
            before.seek(0)
        steps.close()  # given up, or its agent dies
        assert VALUE in path.read_bytes()
        done_at_once(mask_file(path, MASK, 64))
        assert path.read_bytes() == b"x" * 200 + b"*" * len(VALUE) + b"y" * 200
    assert os.listdir(tmp_path) == ["stdout"]
    number = path.stat().st_ino
    done_at_once(mask_file(path, MASK, 64))
    assert path.stat().st_ino == number


def test_no_link_and_no_fifo_is_written_to(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(VALUE)
    (tmp_path / "stdout").symlink_to(other)
    with pytest.raises(NoPlainFileError):
        done_at_once(mask_file(tmp_path / "stdout", MASK))
    assert other.read_bytes() == VALUE


def test_logs_are_archived_without_secrets_and_results_are_as_they_are(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "results").mkdir(parents=True)
    (work / "results/x").write_bytes(VALUE)
    (tmp_path / "stdout").write_bytes(b"it is " + VALUE + b"\n")
    (tmp_path / "stderr").write_bytes(b"")
    found = done_at_once(collect(work, ["results/**"], tmp_path, REF, mask=MASK))
    assert {one.path: one.size_bytes for one in found.artifacts} == {
        "results/x": len(VALUE),
        "stdout": len(VALUE) + 7,
    }
    assert (tmp_path / "stdout").read_bytes() == b"it is " + b"*" * len(VALUE) + b"\n"
    assert (work / "results/x").read_bytes() == VALUE


def test_a_log_that_cannot_be_hidden_in_is_not_archived(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "results").mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(VALUE)
    (tmp_path / "stdout").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "stderr").write_bytes(b"")
    found = done_at_once(collect(work, ["results/**"], tmp_path, REF, mask=MASK))
    assert found.artifacts == ()
    assert "may hold secrets" in found.problem
