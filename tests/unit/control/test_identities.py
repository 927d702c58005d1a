"""Join tokens and certificates in the control machine: what is taken, and what is believed no more."""

from dataclasses import replace

import pytest

from control.core import events
from control.core.answers import Refusal
from control.core.effects import Admitted, Issued, Revoked
from control.core.errors import RevokedError
from control.core.identities import CERTIFICATES_OF_ONE_MAX, TOKEN_KEPT
from control.core.rows import Holder
from shoal.identity import Role
from tests.unit.control.desk import Desk
from tests.unit.control.joining import (
    CAM,
    FIRST,
    HOUR,
    RIGHT,
    YEAR,
    certificate,
    join,
    revoke,
    token,
)
from tests.unit.control.world import hello


def refused(answer: object) -> str:
    assert isinstance(answer, Refusal), answer
    return answer.reason


def issued(answer: object) -> str:
    assert isinstance(answer, Issued), answer
    return answer.certificate.serial


def dial(desk: Desk, serial: str, agent: str = "agent") -> object:
    session = f"session-{next(desk.calls)}"
    said = replace(hello("cam-1"), agent_id=agent)
    answer = desk.post(lambda call: events.HelloReceived(call, said, session, "", serial))
    if isinstance(answer, Admitted):
        desk.sessions["cam-1"] = session
    return answer


def test_a_token_for_one_use_gives_one_certificate_also_after_a_restart() -> None:
    desk = Desk()
    token(desk)
    assert issued(join(desk, certificate(desk, "01"))) == "01"
    desk.start()
    other = Holder(Role.NODE, "cam-2")
    assert refused(join(desk, certificate(desk, "02", holder=other, key="key-2"))) == "TOKEN_USED"
    assert list(desk.machine.identities.certificates) == ["01"]
    assert desk.machine.identities.tokens[FIRST].uses_left == 0


def test_an_answer_that_was_lost_is_given_again_to_the_same_key() -> None:
    desk = Desk()
    token(desk)
    assert issued(join(desk, certificate(desk, "01"))) == "01"
    assert issued(join(desk, certificate(desk, "02"))) == "01"
    assert refused(join(desk, certificate(desk, "03", key="key-2"))) == "TOKEN_USED"


@pytest.mark.parametrize(
    ("holder", "secret", "reason"),
    [
        (CAM, "wrong", "UNKNOWN_TOKEN"),
        (Holder(Role.NODE, "mic-1"), RIGHT, "NAME_NOT_ALLOWED"),
        (Holder(Role.OPERATOR, "cam-1"), RIGHT, "ROLE_NOT_ALLOWED"),
        (Holder(Role.VIEWER, "cam-1", "lab"), RIGHT, "ROLE_NOT_ALLOWED"),
    ],
)
def test_a_token_is_taken_for_what_it_says_alone(holder: Holder, secret: str, reason: str) -> None:
    desk = Desk()
    token(desk)
    assert refused(join(desk, certificate(desk, "01", holder=holder), secret)) == reason
    assert desk.machine.identities.tokens[FIRST].uses_left == 1


def test_no_token_brings_the_name_of_the_controllers_own_operator() -> None:
    desk = Desk()
    token(desk, role=Role.OPERATOR, name_pattern="*")
    local = certificate(desk, "01", holder=Holder(Role.OPERATOR, "local"))
    assert refused(join(desk, local)) == "NAME_NOT_ALLOWED"
    ann = certificate(desk, "02", holder=Holder(Role.OPERATOR, "ann"))
    assert issued(join(desk, ann)) == "02"


def test_a_token_that_is_over_says_so_until_it_is_forgotten() -> None:
    desk = Desk()
    token(desk)
    desk.now += HOUR.total_seconds()
    assert refused(join(desk, certificate(desk, "01"))) == "TOKEN_EXPIRED"
    desk.now += TOKEN_KEPT.total_seconds()
    desk.pass_time(0.25)
    assert refused(join(desk, certificate(desk, "01"))) == "UNKNOWN_TOKEN"
    desk.start()
    assert desk.machine.identities.tokens == {}


def test_a_token_that_was_revoked_is_unknown() -> None:
    desk = Desk()
    token(desk)
    assert desk.post(lambda call: events.RevokeToken(call, FIRST)) is None
    assert refused(desk.post(lambda call: events.RevokeToken(call, FIRST))) == "UNKNOWN_TOKEN"
    desk.start()
    assert refused(join(desk, certificate(desk, "01"))) == "UNKNOWN_TOKEN"


def test_revoking_a_node_ends_its_session_and_holds_after_a_restart() -> None:
    desk = Desk()
    token(desk, uses_left=5)
    join(desk, certificate(desk, "01"))
    assert isinstance(dial(desk, "01"), Admitted)
    assert revoke(desk) == Revoked(1)
    assert desk.ended == ["node cam-1 was revoked"]
    assert desk.machine.session("cam-1") == ""
    desk.start()
    assert desk.machine.identities.revoked() == ("01",)
    assert isinstance(dial(desk, "01"), RevokedError)
    assert refused(revoke(desk)) == "UNKNOWN_IDENTITY"
    # What a stolen board still holds brings it nothing; a new token does.
    assert refused(join(desk, certificate(desk, "02"))) == "REVOKED"
    desk.now += 1.0
    token(desk, "newtoken")
    assert issued(join(desk, certificate(desk, "03", "newtoken"))) == "03"
    assert isinstance(dial(desk, "03"), Admitted)


def test_a_board_whose_disk_was_wiped_takes_the_place_of_what_it_was() -> None:
    desk = Desk()
    token(desk, uses_left=5)
    join(desk, certificate(desk, "01"))
    assert isinstance(dial(desk, "01"), Admitted)
    wiped = certificate(desk, "02", key="key-2")
    assert refused(join(desk, wiped)) == "NAME_IN_USE"
    desk.hang_up("cam-1")
    assert issued(join(desk, wiped)) == "02"
    assert desk.machine.identities.revoked() == ("01",)
    told = dial(desk, "01")
    assert isinstance(told, RevokedError)
    assert "joined again with another key" in str(told)
    assert desk.waiting("identities/node/cam-1") == ["shoal.identity.joined"] * 2
    # And once more: it is no revocation by a person.
    assert issued(join(desk, certificate(desk, "03", key="key-3"))) == "03"


def test_people_of_one_name_have_several_certificates() -> None:
    desk = Desk()
    ann = Holder(Role.VIEWER, "ann", "lab")
    token(desk, role=Role.VIEWER, namespace="lab", name_pattern="", uses_left=2)
    assert issued(join(desk, certificate(desk, "01", holder=ann))) == "01"
    assert issued(join(desk, certificate(desk, "02", holder=ann, key="key-2"))) == "02"
    assert revoke(desk, Holder(Role.VIEWER, "ann", "lab")) == Revoked(2)
    assert desk.machine.identities.revoked() == ("01", "02")


def test_what_is_revoked_renews_nothing_and_others_do() -> None:
    desk = Desk()
    token(desk)
    join(desk, certificate(desk, "01"))

    def renew(serial: str, key: str) -> object:
        row = certificate(desk, serial, "", key=key)
        return desk.post(lambda call: events.Renew(call, row, "01"))

    assert issued(renew("02", "key-2")) == "02"
    assert issued(renew("03", "key-2")) == "02"
    assert desk.machine.identities.certificates["02"].token_id == FIRST
    for number in range(CERTIFICATES_OF_ONE_MAX - 2):
        renew(f"1{number}", f"more-{number}")
    assert refused(renew("04", "key-4")) == "TOO_MANY"
    assert revoke(desk) == Revoked(CERTIFICATES_OF_ONE_MAX)
    assert refused(renew("05", "key-5")) == "REVOKED"


def test_what_is_over_is_forgotten_and_revoked_no_more() -> None:
    desk = Desk()
    token(desk)
    join(desk, certificate(desk, "01"))
    revoke(desk)
    desk.now += YEAR.total_seconds() + 3600.0
    desk.pass_time(0.25)
    assert desk.machine.identities.certificates == {}
    assert desk.machine.identities.revoked() == ()
    desk.start()
    assert desk.machine.identities.certificates == {}
