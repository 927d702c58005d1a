"""What an attack says about itself, and the table that is made of it."""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "attacks"
DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "security.md"
LEVELS: Final = ("none", "user", "confined", "no network")
"""What attacks are tried at, in order; the last one is level confined without a network."""
NEVER: Final = "never"
BEGIN, END = (
    "<!-- attacks: made by tests/integration/sandbox/attack.py -->",
    "<!-- end of attacks -->",
)
_REFUSED_AT: Final = re.compile(
    r"^Refused at: ([a-z ]+); (.+?)(?=^\w[\w ]+: |\Z)", re.MULTILINE | re.DOTALL
)
_TRIED_BY: Final = re.compile(r"^Tried by: (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack; `lowest` is the level from which on it is refused, and `elsewhere` names a test of its own."""

    name: str
    title: str
    lowest: str
    by: str
    elsewhere: str = ""

    def refused(self, level: str) -> bool:
        """Whether it is refused at a level."""
        return self.lowest != NEVER and LEVELS.index(level) >= LEVELS.index(self.lowest)


def attacks() -> list[Attack]:
    """Return what the files of attacks say, those first that are refused at the lowest level.

    Raises:
        ValueError: one does not say where it is refused.
    """
    found = [_read(path) for path in sorted(FOLDER.glob("[a-z]*.py"))]
    order = (*LEVELS, NEVER)
    return sorted(found, key=lambda attack: (order.index(attack.lowest), attack.title))


def table(shown: Iterable[Attack]) -> str:
    """Return the table of the document."""
    rows = [
        f"| {attack.title} | "
        + " | ".join("refused" if attack.refused(level) else "**succeeds**" for level in LEVELS)
        + f" | {attack.by} |"
        for attack in shown
    ]
    heads = ("`none`", "`user`", "`confined`", "`confined`, no network")
    head = f"| a job tries to | {' | '.join(heads)} | by what, at the lowest level |"
    return "\n".join((head, "|---|---|---|---|---|---|", *rows))


def written() -> str:
    """Return the table that stands in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def write() -> None:
    """Put the table into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table(attacks())}\n{END}{after}", encoding="utf-8")


def _read(path: Path) -> Attack:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    refused = _REFUSED_AT.search(said)
    if refused is None or refused[1] not in {*LEVELS, NEVER}:
        raise ValueError(
            f"{path}: say `Refused at: LEVEL; by what`, with one of {', '.join((*LEVELS, NEVER))}"
        )
    tried = _TRIED_BY.search(said)
    title = said.splitlines()[0].rstrip(".")
    by = " ".join(refused[2].split()).rstrip(".")
    return Attack(
        path.stem, title[0].lower() + title[1:], refused[1], by, tried[1] if tried else ""
    )


if __name__ == "__main__":
    write()
