"""`make edge-task`: the whole way of a task of the dashboard, with the shipped template."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.kit.s3_servers import Ministack
from tests.kit.tree import ROOT

_STAGES = [
    "Downloading files...",
    "Download complete",
    "Installing dependencies....",
    "Dependencies successfully installed",
    "Task started",
    "Task Completed.",
    "Results uploaded",
    "Done",
]


async def test_a_task_goes_from_its_folder_in_s3_to_its_results_there(
    ministack: Ministack, tmp_path: Path
) -> None:
    """Cases E1 to E4, E7 and E8, by the command that anybody can run."""
    done = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-m", "compose.edge_task"),
            *("--ministack", ministack.program, "--state", str(tmp_path / "state")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    updates = [line for line in said if line.startswith("Updates")]
    assert all("node-2" in line for line in updates), "the message names that node"
    assert len(updates) == len(_STAGES), done.stdout
    assert all(line.endswith(stage) for line, stage in zip(updates, _STAGES, strict=True))
    assert any(line.strip() == "4.2,1.3,versicolor" for line in said)
