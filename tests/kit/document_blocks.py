"""The blocks of shell commands of a document, with where they run and what they print."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PART: Final = re.compile(
    r"^## (?P<heading>[^\n]+)$|^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands.

    Attributes:
        section: the heading above it.
        where: what its first line says, without the `#`.
        commands: the other lines.
        prints: the lines of the block of text right behind it; `…` stands for anything.
    """

    section: str
    where: str
    commands: str
    prints: tuple[str, ...] = ()

    def missing(self, said: str) -> list[str]:
        """Return the lines of `prints` that a program did not say."""
        patterns = (".*".join(map(re.escape, line.split("…"))) for line in self.prints)
        return [pattern for pattern in patterns if not re.search(pattern, said)]


def blocks(document: Path) -> list[Block]:
    """Return the `sh` blocks of a document in their order.

    Raises:
        ValueError: the first line of one does not say where it runs.
    """
    section = ""
    found: list[Block] = []
    behind = 0
    words = document.read_text(encoding="utf-8")
    for part in _PART.finditer(words):
        text = part["text"] or ""
        match part["kind"]:
            case None:
                section = part["heading"]
            case "sh":
                first, _, rest = text.partition("\n")
                if not first.startswith("# "):
                    raise ValueError(f"{document}: say in the first line where this runs: {first}")
                found.append(Block(section, first.removeprefix("# "), rest))
                behind = part.end()
            case "text" if not words[behind : part.start()].strip():
                last = found.pop()
                prints = tuple(text.splitlines())
                found.append(Block(last.section, last.where, last.commands, prints))
            case _:
                pass
    return found
