"""A fixture for tests of jobs: `pytest_plugins = ["shoal.pytest_plugin"]` in conftest.py.

```python
def test_two_people(emulate):
    result = emulate(detector.detect, {"frames": [picture]}, ["found"])
    assert result.outputs["found"] == [[(10, 20, 64, 128)]]

def test_sorting(emulate):
    result = emulate(
        "sort -n", {"numbers": ["10", "9"]}, ["sorted"],
        formats={"numbers": "lines", "sorted": "lines"}, stdio=["numbers", "sorted"],
    )
    assert result.outputs["sorted"] == ["9", "10"]
```

This module needs pytest (`shoal[pytest]`), which the library itself does not.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import pytest

from shoal.job import testing


class Emulate(Protocol):
    """Runs a job in a test; options are those of `testing.call` and `testing.run_program`."""

    def __call__(
        self,
        job: Any,
        inputs: Mapping[str, Iterable[Any]] | None = None,
        outputs: Sequence[str] = (),
        **options: Any,
    ) -> testing.Result:
        """Run a function or class here, or a program: a text as in `run:`, or its words."""
        ...


@pytest.fixture
def emulate(tmp_path: Path) -> Emulate:
    """Run jobs without a cluster; each gets a `results/` folder of its own below `tmp_path`."""
    runs = 0

    def run(
        job: Any,
        inputs: Mapping[str, Iterable[Any]] | None = None,
        outputs: Sequence[str] = (),
        **options: Any,
    ) -> testing.Result:
        nonlocal runs
        runs += 1
        options.setdefault("results", tmp_path / f"run-{runs}" / "results")
        if isinstance(job, str):
            return testing.run_program(shlex.split(job), inputs, outputs, **options)
        if isinstance(job, (list, tuple)):
            words = cast("Sequence[object]", job)
            return testing.run_program([str(word) for word in words], inputs, outputs, **options)
        return testing.call(job, inputs, outputs, **options)

    return run
