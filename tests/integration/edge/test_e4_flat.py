"""Case E4: a task's folders become one, nothing is written over, and the script that runs is no guess."""

import asyncio
import json
from pathlib import Path

import pytest

from shoal.errors import ShoalError
from shoal.model import PipelineState
from shoal.specfile.load import parse
from tests.kit.cluster import describe, job_of
from tests.kit.edge import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SECONDS = 60
_SCRIPT = b"""
import os
def load(name):
    with open(name, "rb") as file:
        return file.read()
with open("iris.csv") as file:
    rows = file.read().split()
model = load("pavan.h5")
with open("Results/out.txt", "w") as file:
    file.write("%d rows, %d bytes" % (len(rows), len(model)))
"""
_FILES = """
import json, os
found = sorted(os.path.join(folder, name)[2:] for folder, _, names in os.walk(".") for name in names)
with open("results/found.json", "w") as file:
    json.dump(found, file)
"""


def task(edge: Edge, prefix: str, layout: str = "flat", more: str = "", run: str = "") -> str:
    """The specification of a task as the original has it."""
    return f"""
name: task
jobs:
  task:
    run: [python3, {run or '"{inputs.task.entry}"'}]
    environment: {{requirements: "{{inputs.task.requirements}}"}}
    inputs:
      task: {{prefix: "s3://{edge.uploads}/{prefix}", layout: {layout}{more}}}
    archive: ["Results/**", "results/**"]
"""


async def run(edge: Edge, text: str, path: str) -> bytes:
    """Run a pipeline to its end, and return one of its results."""
    spec = parse(text, "task.yaml", Path("/nowhere")).pipeline
    submitted = await edge.client.submit(spec)
    ended = await edge.client.wait(submitted.pipeline.id, deadline_seconds=_SECONDS)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    (artifact,) = [one for one in job_of(ended, "task").artifacts if one.path == path]
    objects = await edge.objects(f"archive/{artifact.key}", edge.archive)
    return objects[f"archive/{artifact.key}"]


async def refusal(edge: Edge, text: str) -> ShoalError:
    """Why a pipeline is not taken."""
    with pytest.raises(ShoalError) as refused:
        await edge.client.submit(parse(text, "task.yaml", Path("/nowhere")).pipeline)
    return refused.value


async def test_e4_a_script_that_thinks_all_files_are_beside_it_works_unmodified(edge: Edge) -> None:
    """The form of the dashboard writes an empty key for a file that was not chosen."""
    prefix = "ada/Classification/task7/"
    await edge.upload({
        f"{prefix}Code/main.py": _SCRIPT,
        f"{prefix}Data/": b"",
        f"{prefix}Data/iris.csv": b"1\n2\n3\n",
        f"{prefix}Model/pavan.h5": b"weights",
        f"{prefix}Requirements/": b"",
        f"{prefix}Input/": b"",
        f"{prefix}Results/out.txt": b"of a run before",
    })  # fmt: skip
    assert await run(edge, task(edge, prefix), "Results/out.txt") == b"3 rows, 7 bytes"


async def test_e4_a_tree_keeps_its_folders(edge: Edge) -> None:
    prefix = "ada/Classification/tree/"
    await edge.upload({
        f"{prefix}Code/main.py": _FILES.encode(),
        f"{prefix}Data/": b"",
        f"{prefix}Data/a b/iris #1%.csv": b"1",
        f"{prefix}Input/iris.csv": b"2",
    })  # fmt: skip
    found = json.loads(await run(edge, task(edge, prefix, "tree"), "results/found.json"))
    assert found == ["Code/main.py", "Data/a b/iris #1%.csv", "Input/iris.csv"]


async def test_e4_two_files_of_one_name_are_refused_with_both_keys(edge: Edge) -> None:
    prefix = "ada/Classification/clash/"
    keys = [f"{prefix}Data/iris.csv", f"{prefix}Input/iris.csv"]
    await edge.upload({f"{prefix}Code/main.py": _SCRIPT, keys[0]: b"1", keys[1]: b"2"})
    refused = await refusal(edge, task(edge, prefix))
    assert refused.reason == "INVALID_SOURCE"
    assert all(key in refused.message for key in keys), refused.message
    assert "layout: tree" in refused.message


async def test_e4_several_scripts_without_an_entry_are_listed(edge: Edge) -> None:
    prefix = "ada/Classification/several/"
    await edge.upload({
        f"{prefix}Code/model.py": b"raise SystemExit(1)",
        f"{prefix}Code/train.py": _FILES.encode(),
    })  # fmt: skip
    refused = await refusal(edge, task(edge, prefix))
    assert refused.reason == "INVALID_SOURCE"
    assert "Code/model.py, Code/train.py" in refused.message
    assert "entry" in refused.message
    named = task(edge, prefix, more=", entry: Code/train.py")
    assert json.loads(await run(edge, named, "results/found.json")) == ["model.py", "train.py"]
    refused = await refusal(edge, task(edge, prefix, more=", entry: Code/trian.py"))
    assert "'Code/trian.py' is no file of" in refused.message


async def test_e4_more_than_a_page_of_keys_arrives_whole(edge: Edge) -> None:
    """The original listed 1,000 keys, which is a page."""
    prefix = "ada/Classification/many/"
    keys = [f"{prefix}Data/{number:04}" for number in range(1105)]
    await asyncio.gather(*(edge.upload(dict.fromkeys(keys[part::8], b"x")) for part in range(8)))
    await edge.upload({f"{prefix}Code/main.py": _FILES.encode()})
    spec = task(edge, prefix, more=", pattern: [Code/**, Data/1*]")
    found = json.loads(await run(edge, spec, "results/found.json"))
    assert found == [f"{number:04}" for number in range(1000, 1105)] + ["main.py"]


async def test_e5_requirements_of_the_task_are_installed_before_its_code_runs(edge: Edge) -> None:
    """Both spellings of the folder; a list that cannot be installed is INSTALL, and no code runs."""
    for folder in ("Requirements", "Requirement"):
        prefix = f"ada/Classification/{folder.lower()}/"
        await edge.upload({
            f"{prefix}Code/main.py": b"raise SystemExit('it ran')",
            f"{prefix}{folder}/needs.txt": b"./no-such-package-of-ours.whl\n",
        })  # fmt: skip
        spec = parse(task(edge, prefix), "task.yaml", Path("/nowhere")).pipeline
        submitted = await edge.client.submit(spec)
        ended = await edge.client.wait(submitted.pipeline.id, deadline_seconds=_SECONDS)
        assert ended.state is PipelineState.FAILED
        (job,) = ended.jobs
        assert job.reason.short == "INSTALL", describe(ended)
