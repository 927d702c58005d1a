"""The words of the house: classes are called what docs/nomenclature.md says, and sentences name their subject."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.kit.tree import parsed, sources, text

WORDS = Path("docs/nomenclature.md")
PRODUCT = ("control", "edge_agent", "sdk", "services", "compose")
GENERATED = Path("sdk/shoal/v1")

VAGUE = re.compile(
    r"\b(?:who(?:ever|m)?|(?:some|any|every|no)body|(?:some|any|every)one)\b", re.IGNORECASE
)

OTHER_THINGS = {
    "Client": "a user's program at the controller, and the near end of a connection",
    "Command": "a command line: of a program, and of `shoal`",
    "Config": "the settings of a process; what a user asks for is a spec",
    "Connection": "a connection of TCP or gRPC, which carries many lanes",
    "Error": "an exception, as PEP 8 names it; why an attempt ended is a reason",
    "Execution": "exec(2) of a program, with its limits",
    "Mark": "a place in a YAML document, as PyYAML names it; a level that a disk may fall below",
    "Network": "the network that a program reaches; jobs and their streams are a pipeline",
    "Pause": "the time before another try",
    "Peer": "the other end of a lane; a participant in gossip is a member",
    "Result": "what a call returns; what a job stored are artifacts",
    "Run": "jobs that run beside their client, several attempts of them",
    "Status": "the exit status of a program, as wait(2) has it",
    "Step": "one line of a recipe; the records that belong together are a round",
    "Token": "a join token; what tells placements apart is an epoch",
    "Worker": "the stream worker",
}
"""Words that name other things too, at the end of a class's name, and which."""


def test_no_class_is_called_what_the_words_say_not_to() -> None:
    defined, wrong = _words()
    found: dict[str, set[str]] = {}
    for path in sources(*PRODUCT):
        if GENERATED in path.parents:
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                last = re.findall(r"[A-Z][a-z0-9]*", node.name)[-1]
                if last in wrong - defined:
                    found.setdefault(last, set()).add(f"{path}: {node.name}")
    new = {word: names for word, names in found.items() if word not in OTHER_THINGS}
    assert new == {}, f"use the word of {WORDS}, or say there what else this one means"
    assert sorted(OTHER_THINGS.keys() - found.keys()) == [], "nothing has these names any more"


def _words() -> tuple[set[str], set[str]]:
    """Return the words that are defined, and those that stand in the column of what not to say."""
    defined: set[str] = set()
    wrong: set[str] = set()
    for row in text(WORDS).splitlines():
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        if len(cells) == 3 and row.startswith("|") and cells[0] != "word":
            for words, of in ((cells[0], defined), (cells[2], wrong)):
                of |= {
                    word.strip().capitalize()
                    for word in re.split("[,;]", re.sub(r"\(.*?\)|\*", "", words))
                }
    return defined, wrong


def test_sentences_name_their_subject() -> None:
    """A caller is a caller, not "somebody": what is meant is said in each docstring and comment."""
    vague = [
        f"{path}: {line.strip()}"
        for path in sources(*PRODUCT)
        if GENERATED not in path.parents
        for told in _told(path)
        for line in re.sub(r"`[^`]*`", "", told).splitlines()
        if VAGUE.search(line)
    ]
    assert vague == [], "say which client, agent, process or person is meant"


def _told(path: Path) -> Iterator[str]:
    """Yield the docstrings and comments of a module."""
    for token in tokenize.generate_tokens(io.StringIO(text(path)).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(parsed(path)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value.value
