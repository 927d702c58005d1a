"""Who is let in by a gateway, and how often."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from services.gateway.contract import OFFERED
from services.gateway.door import COOKIE, SECOND_WORD, Door, DoorLimits
from services.gateway.gateway_counts import GatewayCounts
from services.gateway.session_file import SessionFile, second_word
from services.gateway.user_file import GatewayUser, UserFile
from services.identity.access.rule import ROLES, Verb
from services.identity.access.rules import RULES
from shoal.errors import ShoalError
from shoal.identity import Role
from shoal.v1 import pipelines_service_pb2 as v1


class Entry:
    """A door with a clock that a test moves."""

    def __init__(self, folder: Path, anonymous: Role | None = None) -> None:
        self.now = 1000.0
        self.counts = GatewayCounts()
        self.users = UserFile(folder / "users.json")
        self.users.allow(GatewayUser("ann", Role.VIEWER), "ann-word")
        self.users.allow(GatewayUser("bob", Role.SUBMITTER, "lab"), "bob-word")
        self.sessions = SessionFile(folder / "sessions.json", self.users, 60, lambda: self.now)
        self.door = Door(
            self.users,
            self.sessions,
            anonymous,
            DoorLimits(calls_per_second=2, watches=2),
            lambda: "c1",
            lambda: self.now,
            self.counts,
        )

    def user(self, name: str) -> GatewayUser:
        user = self.users.of_name(name)
        assert user is not None
        return user


def refused(call: Callable[[], object]) -> ShoalError:
    with pytest.raises(ShoalError) as error:
        call()
    return error.value


def test_a_token_is_whose_it_is_and_another_one_is_nobodys(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    found = entry.door.caller({"authorization": "bearer  ann-word"}, "POST", "10.0.0.1", "m")
    assert found.name == "ann"
    for headers, reason in (
        ({"authorization": "Bearer none"}, "TOKEN_UNKNOWN"),
        ({"authorization": "Basic ann-word"}, "SIGN_IN"),
        ({}, "SIGN_IN"),
        ({"cookie": f"{COOKIE}=none"}, "SIGN_IN"),
        ({"cookie": "\x00=;;=,"}, "SIGN_IN"),
    ):
        entry.now += 10
        error = refused(partial(entry.door.caller, headers, "POST", "10.0.0.1", "m"))
        assert (error.code, error.reason) == ("UNAUTHENTICATED", reason)


async def test_a_cookie_alone_reads_and_with_its_second_word_does_all(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    word = await entry.sessions.begin(entry.user("ann"))
    headers = {"cookie": f"other=1; {COOKIE}={word}"}
    assert entry.door.caller(headers, "GET", "", "m").name == "ann"
    for wrong in ({}, {SECOND_WORD: "x"}, {SECOND_WORD: second_word("x")}):
        entry.now += 10
        error = refused(partial(entry.door.caller, {**headers, **wrong}, "POST", "", "m"))
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "CSRF")
    assert (
        entry.door.caller({**headers, SECOND_WORD: second_word(word)}, "POST", "", "m").name
        == "ann"
    )


def test_who_has_not_signed_in_is_a_viewer_only_where_the_gateway_says_so(tmp_path: Path) -> None:
    entry = Entry(tmp_path, Role.VIEWER)
    found = entry.door.caller({}, "POST", "10.0.0.1", "m")
    assert (found.name, found.role) == ("anonymous", Role.VIEWER)
    assert refused(
        lambda: entry.door.caller({"authorization": "Bearer none"}, "POST", "", "m")
    ).reason == ("TOKEN_UNKNOWN")


def test_a_user_that_asks_too_often_waits_and_no_other_does(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    ann, bob = ({"authorization": f"Bearer {name}-word"} for name in ("ann", "bob"))
    for _ in range(4):
        entry.door.caller(ann, "POST", "10.0.0.1", "m")
    error = refused(lambda: entry.door.caller(ann, "POST", "10.0.0.2", "m"))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA")
    assert error.metadata["option"] == "--calls-per-second"
    assert "call again in 0.5 s" in error.message
    entry.door.caller(bob, "POST", "10.0.0.1", "m")
    entry.now += error.retry_seconds
    entry.door.caller(ann, "POST", "10.0.0.1", "m")


def test_whoever_guesses_is_slowed_down_by_its_address(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    guess = {"authorization": "Bearer guess"}
    reasons = [
        refused(lambda: entry.door.caller(guess, "POST", "10.0.0.1", "m")).reason for _ in range(6)
    ]
    assert reasons == ["TOKEN_UNKNOWN"] * 4 + ["QUOTA"] * 2
    assert (
        refused(lambda: entry.door.caller(guess, "POST", "10.0.0.2", "m")).reason == "TOKEN_UNKNOWN"
    )
    assert (
        entry.door.caller({"authorization": "Bearer ann-word"}, "POST", "10.0.0.1", "m").name
        == "ann"
    )


async def test_a_watch_is_of_the_token_or_the_session_that_lets_it_in(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    ann = entry.user("ann")
    word = await entry.sessions.begin(ann)
    cookie = {"cookie": f"{COOKIE}={word}"}
    assert entry.door.take_watch(ann, cookie).session == word
    by_token = entry.door.take_watch(ann, {**cookie, "authorization": "Bearer ann-word"})
    assert by_token.session == ""
    error = refused(lambda: entry.door.take_watch(ann, cookie))
    assert error.metadata["option"] == "--watches"


@pytest.mark.parametrize("path", OFFERED)
def test_a_role_may_what_the_table_of_the_controller_says(tmp_path: Path, path: str) -> None:
    entry = Entry(tmp_path)
    rule, request = RULES[path], OFFERED[path].request()
    roles = ROLES[rule.verb]
    if Role.VIEWER in roles:
        entry.door.check(entry.user("ann"), rule, path, request)
    else:
        error = refused(lambda: entry.door.check(entry.user("ann"), rule, path, request))
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "NOT_ALLOWED")
        assert "shoal gateway allow" in error.message
    if rule.verb in {Verb.OPERATE, Verb.DRAIN}:
        error = refused(lambda: entry.door.check(entry.user("bob"), rule, path, request))
        assert error.reason == "NOT_ALLOWED"


def test_a_user_of_one_namespace_stays_in_it(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    path = "/shoal.v1.PipelinesService/SubmitPipeline"
    bob = entry.user("bob")
    entry.door.check(bob, RULES[path], path, v1.SubmitPipelineRequest(namespace="lab"))
    error = refused(lambda: entry.door.check(bob, RULES[path], path, v1.SubmitPipelineRequest()))
    assert error.reason == "OTHER_NAMESPACE"
