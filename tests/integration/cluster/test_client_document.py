"""docs/client.md: the program that stands there runs as it stands there."""

import asyncio
import re
import sys
from pathlib import Path

from shoal.spec import Pipeline
from tests.kit.cluster import running_cluster
from tests.kit.tree import ROOT

PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)
SPEC = """
name: hello
bundle: .
jobs:
  say: {run: [sh, say.sh]}
"""


async def test_the_first_program_runs_a_specification(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS[0])
    spec = tmp_path / "job" / "pipeline.yaml"
    spec.parent.mkdir()
    spec.write_text(SPEC)
    (spec.parent / "say.sh").write_text("echo hello > results/hello.txt")
    async with running_cluster(tmp_path / "cluster") as (cluster, _), asyncio.timeout(60):
        words = (str(tmp_path / "program.py"), cluster.controller_address, str(spec))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert said.decode() == "say results/hello.txt 6\n"


def test_the_last_makes_a_pipeline() -> None:
    made: dict[str, object] = {}
    exec(PROGRAMS[-1], made)  # noqa: S102 - it is our own document
    assert isinstance(made["pipeline"], Pipeline)
