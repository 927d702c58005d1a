"""The table of secrets, drawn with rich."""

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table
from rich.text import Text

from shoal.cli.figures import age_text
from shoal.cli.tables import make_table
from shoal.secret import SecretView


def secrets_table(secrets: Iterable[SecretView], now: datetime) -> Table:
    """Show secrets by name, without their values."""
    table = make_table("secret", ">version", "set", "by", "")
    for one in secrets:
        table.add_row(
            one.name,
            str(one.version),
            f"{age_text(one.update_time, now)} ago" if one.update_time else "",
            one.creator,
            Text("its key is lost: set it again", style="red") if one.unreadable else Text(),
        )
    return table
