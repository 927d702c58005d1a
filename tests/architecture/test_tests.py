"""How tests are written: they wait for conditions and use the real parts."""

import re
from pathlib import Path

from tests.kit.tree import sources, text

WAITS = Path("tests/kit/until.py")
VIRTUAL = Path("tests/simulation/mesh")
"""There a loop in virtual time runs everything, so that sleeping takes no time."""
SLEEP = re.compile(
    r"\b(?:asyncio|time|anyio|trio)\s*\.\s*sleep\b|from (?:asyncio|time) import .*\bsleep\b"
)
# Put together from pieces, or this file would find itself.
MOCK = re.compile(
    "|".join(["unittest" + r"\.mock", "Magic" + "Mock", "monkeypatch" + r"\.setattr"])
)


def _lines(pattern: re.Pattern[str], but: Path | None = None) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path in sources("tests")
        if path != but
        for number, line in enumerate(text(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_test_sleeps() -> None:
    # Wait with tests/kit/until.py, or drive the clock.
    real = [line for line in _lines(SLEEP, but=WAITS) if not line.startswith(f"{VIRTUAL}/")]
    assert real == []


def test_nothing_of_ours_is_mocked() -> None:
    # Use the real part, or a second implementation of its protocol.
    assert _lines(MOCK) == []


def test_test_files_are_found() -> None:
    # A file with tests that pytest does not collect is a lane that does not exist.
    strays = [
        str(path)
        for path in sources("tests")
        if re.search(r"^(?:async )?def test_", text(path), re.MULTILINE)
        and not path.name.startswith("test_")
    ]
    assert strays == []
    packages = {path.parent for path in sources("tests") if path.name == "__init__.py"}
    lonely = [str(path) for path in sources("tests") if path.parent not in packages]
    assert lonely == [], "these folders lack an __init__.py"


def test_each_folder_of_tests_is_in_a_lane() -> None:
    # `make test` runs lanes, each of them folders by name; one that no lane names is never run.
    run = set(re.findall(r"\btests/(\w+)", text(Path("Makefile"))))
    folders = {path.parts[1] for path in sources("tests") if path.name.startswith("test_")}
    assert sorted(folders - run) == [], "name these folders in a lane of the Makefile"
