"""Who may use a gateway, as its file says."""

import json
from pathlib import Path

import pytest

from services.gateway.user_file import GatewayUser, UserFile, UserFileError, hash_of
from shoal.identity import Role

ANN = GatewayUser("ann", Role.VIEWER)


def test_a_user_is_found_by_its_token_and_the_token_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    UserFile(path).allow(ANN, "word-1")
    found = UserFile(path).of_token("word-1")
    assert found == GatewayUser("ann", Role.VIEWER, "", hash_of("word-1"))
    assert UserFile(path).of_token("word-2") is None
    assert "word-1" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_another_process_writes_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    ours, theirs = UserFile(path), UserFile(path)
    assert ours.of_token("word-1") is None
    theirs.allow(ANN, "word-1")
    assert ours.of_token("word-1") is not None
    theirs.allow(GatewayUser("ann", Role.SUBMITTER, "lab"), "word-2")
    assert ours.of_token("word-1") is None
    changed = ours.of_token("word-2")
    assert changed is not None
    assert (changed.role, changed.namespace) == (Role.SUBMITTER, "lab")
    theirs.forbid("ann")
    assert ours.users() == []
    with pytest.raises(UserFileError, match="no user 'ann'"):
        theirs.forbid("ann")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"users": [{"name": "ann"}]}',
        '{"users": [{"name": "Ann!", "role": "viewer", "token_sha256": "0"}]}',
        json.dumps({"users": [{"name": "ann", "role": "operator", "token_sha256": "0" * 64}]}),
    ],
)
def test_a_broken_file_lets_nobody_in_and_says_the_remedy(tmp_path: Path, text: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(text)
    with pytest.raises(UserFileError, match="allow each user again"):
        UserFile(path).of_token("word-1")


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.NODE, Role.GATEWAY, Role.CONTROLLER])
def test_no_user_is_more_than_a_submitter(role: Role) -> None:
    with pytest.raises(ValueError, match="viewer or a submitter"):
        GatewayUser("ann", role)
