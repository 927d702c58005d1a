"""Results past a thousand, out of a real S3 server: by pages, in a browser and on the command line."""

import asyncio
import base64
import datetime as dt
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser

from services.archive.s3_server import S3Server
from shoal.client import Client
from shoal.credentials import write_credentials
from shoal.errors import ShoalError
from shoal.identity import Role
from shoal.spec import Job, Pipeline
from tests.integration.gateway.conftest import Site, running_site
from tests.kit.controller_credentials import credentials_of
from tests.kit.s3_servers import CREDENTIALS, Ministack, make_bucket
from tests.kit.scripted_agent import connected_agent

REGION = "us-east-1"
COUNTS = {"a": 1300, "b": 1200}
PICTURE = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
LISTING = """
async ({token, csrf}) => {
  const found = [];
  let pages = 0, next = '';
  do {
    const answer = await fetch('/shoal.v1.PipelinesService/ListArtifacts', {
      method: 'POST', headers: {'content-type': 'application/json', 'x-shoal-csrf': csrf},
      body: JSON.stringify({name: token, urls: true, pageToken: next}),
    });
    const page = await answer.json();
    found.push(...page.listed);
    next = page.nextPageToken;
    pages += 1;
  } while (next);
  const image = new Image();
  const shown = new Promise((good, bad) => { image.onload = good; image.onerror = () => bad('no picture'); });
  image.src = found.find(one => one.artifact.path.endsWith('.gif')).url;
  await shown;
  return {pages, names: found.map(one => `${one.job}/${one.artifact.path}`), width: image.naturalWidth};
}
"""


@pytest.fixture(scope="module")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@dataclass(frozen=True)
class Results:
    """A pipeline that left 2,500 artifacts, and a site before its controller."""

    site: Site
    pipeline: str
    paths: list[str]


@pytest.fixture
async def results(
    tmp_path: Path, bucket_server: Ministack, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Results]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = await make_bucket(S3Server(bucket_server.endpoint, REGION))
    archive = f"s3://{bucket}/archive?endpoint={bucket_server.endpoint}&region={REGION}"
    files = {
        job: {f"{number:05}": f"{job}{number}".encode() for number in range(count)}
        for job, count in COUNTS.items()
    }
    del files["b"]["00000"]
    files["b"]["00000.gif"] = PICTURE
    # A thousand addresses take half a second of CPU, and on a busy machine far longer.
    patient = ("--call-seconds", "300")
    async with (
        running_site(tmp_path, *patient, archive=archive, lease_seconds=300.0) as site,
        site.operator() as client,
    ):
        submitted = await client.submit(Pipeline("p", tuple(Job(job, ("true",)) for job in files)))
        cam = credentials_of(site.state, Role.NODE, "cam-1")
        async with connected_agent(site.controller, "cam-1", credentials=cam) as agent:
            for job, left in files.items():
                await agent.run_to_success(job, left)
        paths = [f"{job}/{path}" for job, left in files.items() for path in sorted(left)]
        yield Results(site, submitted.pipeline.name, paths)


async def listed(results: Results, **asked: object) -> list[list[dict[str, Any]]]:
    """Read all pages by JSON."""
    pages: list[list[dict[str, Any]]] = []
    token = ""
    while True:
        status, page = await results.site.gateway.ask(
            "PipelinesService/ListArtifacts",
            results.site.bob,
            {"name": results.pipeline, "pageToken": token, **asked},
        )
        assert status == 200, page
        pages.append(page["listed"])
        assert ("urlEndTime" in page) == bool(asked.get("urls"))
        if "urlEndTime" in page:
            left = dt.datetime.fromisoformat(page["urlEndTime"]) - dt.datetime.now(dt.UTC)
            assert dt.timedelta(minutes=1) < left <= dt.timedelta(hours=24)
        token = page.get("nextPageToken", "")
        if not token:
            return pages


async def test_results_past_a_thousand_come_with_their_addresses(
    results: Results, chromium: Browser
) -> None:
    site = results.site
    pages = await listed(results, urls=True)
    assert [len(page) for page in pages] == [1000, 1000, 500]
    every = [one for page in pages for one in page]
    assert [f"{one['job']}/{one['artifact']['path']}" for one in every] == results.paths
    assert {one["attempt"] for one in every} == {
        f"{results.pipeline}/jobs/{job}/attempts/1" for job in COUNTS
    }
    async with aiohttp.ClientSession() as session:
        for one in (every[0], every[1299], every[1300], every[2499]):
            async with session.get(one["url"]) as answer:
                data = await answer.read()
            assert (answer.status, len(data)) == (200, int(one["artifact"]["sizeBytes"]))
        async with session.get(every[1]["url"].replace("00001", "00002")) as answer:
            assert answer.status == 403, "an address is good for one artifact"
    plain = await listed(results)
    assert [len(page) for page in plain] == [2000, 500]
    assert "url" not in plain[0][0]
    assert [len(page) for page in await listed(results, pageSize=900)] == [900, 900, 700]

    page = await chromium.new_page()
    await page.goto(f"{site.gateway.url}/health")
    said = await page.evaluate(
        """async token => (await fetch('/session', {method: 'POST', body: JSON.stringify({token}),
             headers: {'content-type': 'application/json'}})).json()""",
        site.bob,
    )
    seen = await page.evaluate(LISTING, {"token": results.pipeline, "csrf": said["csrf"]})
    assert seen == {"pages": 3, "names": results.paths, "width": 1}

    async with site.operator() as client:
        found = [one async for one in client.artifacts(results.pipeline, urls=True)]
        assert [f"{one.job}/{one.artifact.path}" for one in found] == results.paths
        assert all(one.url and one.url_end_time for one in found)
        alone = [one async for one in client.artifacts(f"{results.pipeline}/jobs/b", page_size=7)]
        assert [one.artifact for one in alone] == [one.artifact for one in found[1300:]]
        await tell_what_is_wrong(client, results.pipeline)
    await the_command_prints_addresses(results)


async def tell_what_is_wrong(client: Client, pipeline: str) -> None:
    for name, size, reason in (
        ("pipelines/none", 0, "UNKNOWN_PIPELINE"),
        (f"{pipeline}/jobs/none", 0, "UNKNOWN_JOB"),
        (f"{pipeline}/jobs/b/x", 0, "INVALID_NAME"),
        ("", 0, "INVALID_NAME"),
        (pipeline, -1, "INVALID_PAGE_SIZE"),
    ):
        with pytest.raises(ShoalError) as error:
            await anext(client.artifacts(name, page_size=size))
        assert error.value.reason == reason


async def the_command_prints_addresses(results: Results) -> None:
    """`shoal artifacts --urls` of a pipeline of two jobs."""
    folder = results.site.state.parent / "ann"
    write_credentials(folder, credentials_of(results.site.state, Role.VIEWER, "ann"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shoal.cli", "artifacts", "--urls", results.pipeline,
        "--controller", results.site.controller, "--identity", str(folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    lines = [line.split(" ") for line in out.decode().splitlines()]
    assert [path for path, _ in lines] == results.paths
    assert all(url.startswith("http://127.0.0.1:") for _, url in lines)
