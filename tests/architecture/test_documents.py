"""What documents name exists, and their lines are no wider than a window."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from tests.kit.tree import ROOT, sources, text, tracked

DOCUMENTS = tracked("*.md")
DECISIONS = Path("docs/adr")
OF_TODAY = tuple(
    path for path in DOCUMENTS if path.parent != DECISIONS and path.name != "CHANGELOG.md"
)
"""Documents that say how things are; the others say how they were on their day."""
WIDTH = 120
"""Columns of a line of prose, inclusive. Tables and code may be wider."""

FOLDERS = r"\.ci|bench|compose|control|deploy|docs|edge_agent|examples|proto|requirements|sdk|services|tests"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w./{{}},*-]*[\w}}*/]")
FILE = re.compile(r"(?<![\w./-])[\w./-]*\w\.(?:md|proto|py|toml)\b(?!\.)")
"""A file by the end of its path, such as `session/lane.py`."""
CODE = re.compile(r"`([^`]+)`")
PLACEHOLDER = re.compile(r"/[A-Z]+/")
"""A folder that has another name on each machine."""
SYMBOL = re.compile(r"(?<!\w)_{0,2}[A-Za-z]\w*(?:_\w+|[a-z][A-Z]\w*)(?:\.\w+)*")
"""A name of code: with an underscore, or with a capital letter inside."""
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
MENTION = re.compile(r"docs/[\w/-]+(?:\.\w+)?")
STATUS = re.compile(r"^\*(?:Accepted|Replaced by .+,) on \d{4}-\d\d-\d\d", re.MULTILINE)
PARTS = ("Context", "Decision", "Alternatives", "Consequences")

VAGUE = re.compile(
    r"\b(?:who(?:ever|m)?|(?:some|any|every|no)body|(?:some|any|every)one)\b", re.IGNORECASE
)

THE_USERS = {
    "camera.py",
    "detect.py",
    "detector.py",
    "lengths.py",
    "pipeline.py",
    "prompt.py",
    "say.py",
}
"""Files of the users in examples of documents."""

OTHERS = {"__pycache__", "dropped_truncated", "encrypt_verify_incoming", "server_name"}
"""Names that are not spelled in our source: Python's, a counter made of a reason, Serf's, Prometheus'."""


def test_prose_is_no_wider_than_a_window() -> None:
    wide = [
        f"{path}:{number}: {len(line)}"
        for path in DOCUMENTS
        for number, line in _prose(path)
        if len(line) > WIDTH and not line.lstrip().startswith("|")
    ]
    assert wide == [], f"wrap these lines at {WIDTH} columns"


def test_sentences_name_their_subject() -> None:
    # Say "a client", "an agent", "no consumer": which of them acts is what a reader wants to know.
    vague = [
        f"{path}:{number}: {word}"
        for path in DOCUMENTS
        for number, line in _prose(path)
        for word in VAGUE.findall(CODE.sub("", line))
    ]
    assert vague == []


def test_every_path_in_a_document_exists() -> None:
    missing = [
        f"{path}:{number}: {name}"
        for path in DOCUMENTS
        for number, line in _prose(path)
        for name in _paths(line)
        if not _exists(name)
    ]
    assert missing == [], "these files moved: name them where they are"


def test_every_link_of_a_document_leads_somewhere() -> None:
    broken = [
        f"{path}:{number}: {target}"
        for path in DOCUMENTS
        for number, line in _prose(path)
        for target in LINK.findall(line)
        if ":" not in target and not _leads(path, target)
    ]
    assert broken == []


def test_names_of_code_in_documents_are_in_the_source() -> None:
    # A renamed class or function has to be renamed in the documents, too.
    known = set[str]()
    for path in (
        *sources(),
        *tracked("*.proto", "*.service", "*.yml", "Makefile", "pyproject.toml"),
    ):
        known.update(re.findall(r"\w+", text(path)))
    unknown = [
        f"{path}:{number}: {symbol}"
        for path in OF_TODAY
        for number, line in _prose(path)
        for code in CODE.findall(line)
        if not PATH.search(code)
        for symbol in SYMBOL.findall(FILE.sub("", code))
        if not known.issuperset(symbol.split(".")) and symbol not in OTHERS
        if not symbol.startswith(("SHOAL_", "test_"))
    ]
    assert unknown == []


def test_every_make_target_in_a_document_exists() -> None:
    makefile = text(Path("Makefile"))
    known = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    benches = {path.parts[1].removesuffix(".py") for path in sources("bench")}
    known |= {f"bench-{name.replace('_', '-')}" for name in benches}
    unknown = [
        f"{path}:{number}: make {target}"
        for path in DOCUMENTS
        for number, line in enumerate(text(path).splitlines(), 1)
        for target in TARGET.findall("".join(CODE.findall(line)) or line)
        if _is_command(line, target) and target not in known
    ]
    assert unknown == []


def test_every_document_that_source_points_to_exists() -> None:
    missing = [
        f"{path}: {name}"
        for path in sources()
        for name in MENTION.findall(text(path))
        if not (ROOT / name).exists() and not list(ROOT.glob(f"{name}*.md"))
    ]
    assert missing == []


def test_every_decision_has_a_status_a_date_and_its_four_parts() -> None:
    index = text(DECISIONS / "README.md")
    decisions = tracked(f"{DECISIONS}/0*.md")
    bad = [
        str(path)
        for path in decisions
        if not STATUS.search(text(path))
        or not all(f"**{part}.**" in text(path) for part in PARTS)
        or f"({path.name})" not in index
    ]
    assert bad == [], "see docs/adr/README.md for the form, and add them there"
    numbers = [path.name[:4] for path in decisions]
    assert len(numbers) == len(set(numbers)), "two decisions have one number"


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a document outside of its code, each with its number."""
    fence = False
    for number, line in enumerate(text(path).splitlines(), 1):
        if line.lstrip().startswith("```"):
            fence = not fence
        elif not fence:
            yield number, line


def _paths(line: str) -> Iterator[str]:
    """Yield what a line of prose names as a path of the repository."""
    line = LINK.sub("", line)
    yield from (name for name in PATH.findall(line) if not PLACEHOLDER.search(name))
    for code in CODE.findall(line):
        yield from FILE.findall(PATH.sub("", code))


def _exists(name: str) -> bool:
    """Say whether a path, a pattern of paths, or the end of a path is in the tree."""
    if name in THE_USERS:
        return True
    wanted = [one.rstrip("/") for one in _alternatives(name)]
    known = _everything()
    return all(
        any(PurePosixPath(path).match(one) for path in known)
        if "*" in one or not re.match(rf"(?:{FOLDERS})/", one)
        else one in known
        for one in wanted
    )


def _alternatives(name: str) -> list[str]:
    """Return the paths that a name with `{a,b}` stands for."""
    found = re.search(r"\{([^}]*)\}", name)
    if found is None:
        return [name]
    before, after = name[: found.start()], name[found.end() :]
    return [path for one in found[1].split(",") for path in _alternatives(f"{before}{one}{after}")]


@lru_cache
def _everything() -> frozenset[str]:
    """Return all tracked files and their folders."""
    files = tracked()
    folders = {folder for path in files for folder in path.parents}
    return frozenset(str(path) for path in {*files, *folders})


def _leads(document: Path, target: str) -> bool:
    """Say whether a link from a document to a file, or to a heading of one, leads there."""
    name, _, anchor = target.partition("#")
    path = (ROOT / document.parent / name).resolve() if name else ROOT / document
    if not path.exists():
        return False
    return not anchor or anchor in _anchors(path.relative_to(ROOT))


@lru_cache
def _anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    titles = [line.lstrip("#").strip() for _, line in _prose(path) if line.startswith("#")]
    return frozenset(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in titles)


def _is_command(line: str, target: str) -> bool:
    """Say whether `make TARGET` in a line is a command, and not English."""
    return bool(re.search(rf"(?:`|^\s*){re.escape('make ' + target)}\b", line))
