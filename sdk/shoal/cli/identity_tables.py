"""Tables of tokens, certificates and authorities, drawn with rich."""

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table
from rich.text import Text

from shoal.cli.figures import age_text, duration_text
from shoal.cli.tables import make_table
from shoal.identity_view import AuthorityView, CertificateView, TokenView

_FINGERPRINT = 16
"""Digits of a fingerprint that are shown; as many tell two apart."""


def tokens_table(tokens: Iterable[TokenView], now: datetime) -> Table:
    """Show join tokens, without what lets anything join."""
    table = make_table("id", "role", "names", "namespace", ">uses left", ">ends in", "made by")
    for one in tokens:
        table.add_row(
            one.id,
            one.role.value,
            one.name_pattern or "any",
            one.namespace or ("all" if one.role.value in {"viewer", "submitter"} else ""),
            str(one.uses_left),
            _left(one.expire_time, now),
            one.creator,
        )
    return table


def certificates_table(certificates: Iterable[CertificateView], now: datetime) -> Table:
    """Show certificates that are not over."""
    table = make_table("identity", "state", ">issued", ">ends in", "token", "serial")
    for one in certificates:
        good = one.revoke_time is None
        table.add_row(
            one.identity.described,
            Text("good", style="green") if good else Text("revoked", style="red"),
            f"{age_text(one.issue_time, now)} ago" if one.issue_time else "",
            _left(one.expire_time, now),
            one.token_id,
            one.serial[:_FINGERPRINT],
        )
    return table


def authorities_table(authorities: Iterable[AuthorityView], now: datetime) -> Table:
    """Show authorities, the one that signs first."""
    table = make_table("authority", "", ">certificates", ">ends in")
    for one in authorities:
        table.add_row(
            one.fingerprint[:_FINGERPRINT],
            Text("signs", style="green") if one.signs else Text("believed"),
            f"{one.certificates:,}",
            _left(one.expire_time, now),
        )
    return table


def _left(end: datetime | None, now: datetime) -> str:
    return "" if end is None else duration_text(end - now)
