"""The tables of docs/metrics.md, as the catalogues of figures say them.

`python -m tests.kit.figure_table` writes them into the document.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from control.front.controller_figures import CONTROLLER_FIGURES
from edge_agent.agent_figures import AGENT_FIGURES
from services.gateway.gateway_figures import GATEWAY_FIGURES
from services.metrics.figure import Figure
from tests.kit.tree import ROOT

DOCUMENT: Final = ROOT / "docs" / "metrics.md"
CATALOGUES: Final[Mapping[str, tuple[Figure, ...]]] = {
    "controller": CONTROLLER_FIGURES,
    "agent": AGENT_FIGURES,
    "gateway": GATEWAY_FIGURES,
}
_END: Final = "<!-- end -->"


def table(figures: Iterable[Figure]) -> str:
    """A row for each figure: its name, what may be done with it, its labels, its most series, what it says."""
    lines = ["| figure | kind | labels | series | what it says |", "|---|---|---|---|---|"]
    for one in figures:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.series_max:,} | {one.help} |")
    return "\n".join(lines)


def written(text: str) -> str:
    """The document with its tables as the catalogues say them."""
    for name, figures in CATALOGUES.items():
        mark = f"<!-- figures of the {name} -->"
        before, found, rest = text.partition(mark)
        assert found, f"{DOCUMENT.name} has no line {mark}"
        text = f"{before}{mark}\n{table(figures)}\n{_END}{rest.partition(_END)[2]}"
    return text


def write(document: Path = DOCUMENT) -> None:
    """Write the tables anew."""
    document.write_text(written(document.read_text()))


if __name__ == "__main__":
    write()
