"""The table of stored pipelines, drawn with rich."""

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table

from shoal.cli.figures import age_text
from shoal.cli.tables import make_table
from shoal.stored_pipeline import StoredPipelineView


def stored_table(found: Iterable[StoredPipelineView], now: datetime) -> Table:
    """Show versions in their order."""
    table = make_table("name", ">version", "kept", "by", "description")
    for one in found:
        table.add_row(
            one.name,
            str(one.version),
            f"{age_text(one.create_time, now)} ago" if one.create_time else "",
            one.creator,
            one.description,
        )
    return table
