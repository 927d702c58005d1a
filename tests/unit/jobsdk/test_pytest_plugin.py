"""Case F17: jobs emulated in tests, functions and executables alike."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from shoal import job
from shoal.job.testing import DeadlineError

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.pytest_plugin import Emulate

pytest_plugins = ["shoal.pytest_plugin"]


class Table:
    """A job that writes a file."""

    def run(self, numbers: int) -> int:
        (job.context.results / "last").write_text(str(numbers))
        return numbers + 1


@job.main
def double(numbers: int) -> int:
    return 2 * numbers


def test_a_function_and_a_class_are_called(emulate: Emulate, tmp_path: Path) -> None:
    doubled = emulate(double, {"numbers": [1, 2]}, ["doubled"])
    more = emulate(Table, {"numbers": doubled.outputs["doubled"]}, ["more"])
    assert more.outputs["more"] == [3, 5]
    assert (more.results / "last").read_text() == "4"
    assert more.results.is_relative_to(tmp_path)
    assert more.results != doubled.results


@pytest.mark.parametrize("command", ["sort -n", ["sort", "-n"]])
def test_a_program_is_run(emulate: Emulate, command: object) -> None:
    formats = {"numbers": "lines", "sorted": "lines"}
    result = emulate(
        command, {"numbers": ["10", "9"]}, ["sorted"], formats=formats, stdio=list(formats)
    )
    assert result.outputs["sorted"] == ["9", "10"]
    assert result.exit_code == 0


def test_a_program_that_fails_or_stays_is_told(emulate: Emulate) -> None:
    ended = emulate([sys.executable, "-c", "raise SystemExit('no numbers')"])
    assert (ended.exit_code, ended.stderr) == (1, "no numbers\n")
    with pytest.raises(DeadlineError, match="did not end within"):
        emulate("sleep 600", deadline_seconds=0.2)
