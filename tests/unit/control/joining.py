"""What joins and is revoked at the control machine on a table."""

from dataclasses import replace
from datetime import timedelta

from control.core import events
from control.core.rows import CertificateRow, Holder, TokenRow
from shoal.identity import Role
from shoal.join_token import secret_hash
from tests.unit.control.desk import Desk
from tests.unit.control.world import BEGAN

HOUR = timedelta(hours=1)
YEAR = timedelta(days=365)
FIRST = "abcdefgh"
RIGHT = "right"
CAM = Holder(Role.NODE, "cam-1")


def token(desk: Desk, identity: str = FIRST, **changes: object) -> str:
    """Make a token for one use on a node within an hour, unless it is said otherwise; return its id."""
    now = BEGAN + timedelta(seconds=desk.now)
    row = TokenRow(
        identity, secret_hash(RIGHT), Role.NODE, "cam-*", "", now, now + HOUR, 1, "operator/ann"
    )
    row = replace(row, **changes)  # type: ignore[arg-type]
    assert desk.post(lambda call: events.CreateToken(call, row)) is None
    return identity


def certificate(
    desk: Desk, serial: str, by: str = FIRST, *, holder: Holder = CAM, key: str = "key-1"
) -> CertificateRow:
    now = BEGAN + timedelta(seconds=desk.now)
    return CertificateRow(
        serial, holder.role, holder.name, holder.namespace, now, now + YEAR, key, "a1", b"PEM", by
    )  # fmt: skip


def join(desk: Desk, row: CertificateRow, secret: str = RIGHT) -> object:
    return desk.post(lambda call: events.Join(call, row, secret_hash(secret), "10.0.0.7"))


def revoke(desk: Desk, holder: Holder = CAM) -> object:
    return desk.post(lambda call: events.RevokeIdentity(call, holder, "operator/ann"))
