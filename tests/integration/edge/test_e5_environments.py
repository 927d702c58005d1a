"""Case E5: what a job asks for is installed, or it fails with the installer's words before any code runs.

Packages come from an index that asks for a password, which only the agent's operator knows.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from shoal.model import JobState, PipelineState
from shoal.specfile.load import load
from shoal.specfile.mark import SpecFileError
from shoal.view import LogStream
from tests.kit.bundle_archive import wheel_of
from tests.kit.cluster import describe, job_of, printed, submit
from tests.kit.edge import Edge, running_edge
from tests.kit.mosquitto import Mosquitto
from tests.kit.object_server import ObjectServer
from tests.kit.package_index import PackageIndex
from tests.kit.s3_servers import Ministack

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORD = "s3cr3t-of-the-index"


@dataclass(frozen=True, slots=True)
class Shop:
    """A cluster of one node, an index of packages for it, and the folder with all of its files."""

    edge: Edge
    index: PackageIndex
    state: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(
    tmp_path_factory: pytest.TempPathFactory, ministack: Ministack, edge_broker: Mosquitto
) -> AsyncIterator[Shop]:
    """A node whose builds, and nothing else, know the password of its index."""
    state = tmp_path_factory.mktemp("e5")
    credentials = state / "index.netrc"
    credentials.write_text(f"machine 127.0.0.1 login robot password {WORD}\n")
    credentials.chmod(0o600)
    with pytest.MonkeyPatch.context() as variables:
        async with PackageIndex("robot", WORD) as index:
            for version in ("1.0", "2.0"):
                index.add(*wheel_of("pillowlike", version, f"version = {version!r}\n"))
            for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
                variables.delenv(name)
            variables.setenv("PIP_CONFIG_FILE", os.devnull)
            variables.setenv("PIP_INDEX_URL", index.url)
            variables.setenv("SHOAL_AGENT_INDEX_CREDENTIALS", str(credentials))
            async with running_edge(state / "edge", ministack, edge_broker, agents=1) as edge:
                yield Shop(edge, index, state / "edge")


async def test_e5_requirements_and_a_wheel_by_its_address_are_both_there(
    shop: Shop, tmp_path: Path
) -> None:
    name, wheel = wheel_of("imageailike", "2.0.2", "version = '2.0.2'\n")
    async with ObjectServer() as web:
        _, url = web.add(wheel, name)
        spec = (
            "name: both\nbundle: .\njobs:\n  a:\n    run: python main.py\n    environment:\n      steps:\n"
            "        - requirements: requirements.txt\n"
            f"        - {{url: '{url}', sha256: {hashlib.sha256(wheel).hexdigest()}}}\n"
        )
        code = (
            "import os, pillowlike, imageailike\n"
            "print(pillowlike.version, imageailike.version, 'NETRC' in os.environ)\n"
        )
        files = {"main.py": code, "requirements.txt": "pillowlike<2\n"}
        client = shop.edge.client
        submitted = await submit(client, tmp_path, spec, files)
        ended = await client.wait(submitted.pipeline.id, deadline_seconds=120)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert (await printed(client, job_of(ended, "a").name)).strip() == "1.0 2.0.2 False"
    assert shop.index.refused > 0, "the index did ask"


async def test_e5_a_wheel_of_a_bucket_is_installed(shop: Shop, tmp_path: Path) -> None:
    file, wheel = wheel_of("bucketlike", "3.0", "version = '3.0'\n")
    await shop.edge.upload({f"ada/{file}": wheel})
    source = f"s3://{shop.edge.uploads}/ada/{file}"
    spec = (
        "name: bucket\nbundle: .\njobs:\n  a:\n    run: python main.py\n"
        f"    environment: {{wheel: '{source}'}}\n"
    )
    code = "import bucketlike\nprint(bucketlike.version)\n"
    client = shop.edge.client
    submitted = await submit(client, tmp_path, spec, {"main.py": code})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=120)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert (await printed(client, job_of(ended, "a").name)).strip() == "3.0"


async def test_e5_a_failed_install_is_told_and_the_code_never_starts(
    shop: Shop, tmp_path: Path
) -> None:
    mark = tmp_path / "started"
    spec = (
        "name: broken\nbundle: .\njobs:\n  a:\n    run: python main.py\n"
        "    environment: {requirements: requirements.txt}\n"
    )
    files = {
        "main.py": f"open({str(mark)!r}, 'w')\n",
        "requirements.txt": "pillowlike==9.9\n",
    }
    client = shop.edge.client
    submitted = await submit(client, tmp_path / "bundle", spec, files)
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=120)
    job = job_of(ended, "a")
    assert (ended.state, job.state) == (PipelineState.FAILED, JobState.FAILED)
    assert job.reason.short == "INSTALL"
    assert "there is no version of pillowlike==9.9" in job.reason.message
    assert not mark.exists()
    for stream in (LogStream.STDOUT, LogStream.STDERR):
        assert await printed(client, job_of(ended, "a").name, stream) == ""


async def test_e5_without_requirements_nothing_is_installed(shop: Shop, tmp_path: Path) -> None:
    code = "from importlib.metadata import distributions\nprint([*distributions()])\n"
    spec = "{name: bare, bundle: ., jobs: {a: {run: python main.py}}}"
    asked = (shop.index.refused, len(shop.index.downloads))
    client = shop.edge.client
    submitted = await submit(client, tmp_path, spec, {"main.py": code})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=120)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert (await printed(client, job_of(ended, "a").name)).strip() == "[]"
    assert (shop.index.refused, len(shop.index.downloads)) == asked


async def test_e5_two_versions_of_one_package_are_used_at_the_same_time_on_one_node(
    shop: Shop, tmp_path: Path
) -> None:
    """A FIFO opens when both of its ends are there: each program waits until the other one runs."""
    fifo = tmp_path / "meeting"
    os.mkfifo(fifo)
    code = (
        "import sys, pillowlike\n"
        f"open({str(fifo)!r}, sys.argv[1]).close()\n"
        "print(pillowlike.version)\n"
    )
    spec = "name: versions\nbundle: .\njobs:\n" + "".join(
        f"  {name}: {{run: python main.py {mode}, environment: {{pip: [pillowlike=={version}]}}, "
        "resources: {cpus: 0.1}, timeout: 90s}\n"
        for name, mode, version in (("old", "r", "1.0"), ("new", "w", "2.0"))
    )
    client = shop.edge.client
    submitted = await submit(client, tmp_path / "bundle", spec, {"main.py": code})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=180)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert [(await printed(client, job_of(ended, job).name)).strip() for job in ("old", "new")] == [
        "1.0",
        "2.0",
    ]


async def test_e5_a_password_stands_nowhere(shop: Shop, tmp_path: Path) -> None:
    """Neither in what was written by anybody until now, nor may one stand in a specification."""
    path = tmp_path / "pipeline.yaml"
    words = f"--extra-index-url, 'https://robot:{WORD}@127.0.0.1/simple', six"
    path.write_text(f"name: p\njobs: {{a: {{run: x, environment: {{pip: [{words}]}}}}}}\n")
    with pytest.raises(SpecFileError) as raised:
        load(path)
    said = str(raised.value)
    assert "--index-credentials" in said
    files = [file for file in shop.state.rglob("*") if file.is_file()]
    assert any(file.name.endswith(".log") for file in files)
    for file in files:
        assert WORD.encode() not in file.read_bytes(), file
    assert WORD not in said
