"""A new pipeline's own test passes, in the way that its README says."""

import subprocess
import sys
from pathlib import Path


def test_the_test_of_a_new_pipeline_passes(tmp_path: Path) -> None:
    shoal = (sys.executable, "-m", "shoal.cli")
    subprocess.run([*shoal, "new", "hello"], cwd=tmp_path, check=True, timeout=60)
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "hello",
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout
    valid = subprocess.run(
        [*shoal, "validate", "pipeline.yaml"],
        cwd=tmp_path / "hello",
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "hello is valid: 3 jobs, 2 streams" in valid.stdout
