"""Stored pipelines as people keep and run them: the real command at a real controller."""

import json
from pathlib import Path

from shoal.client import Client
from tests.integration.sdk.test_cli_lists import said
from tests.kit.running_controller import running_controller

TEXT = """\
name: street
bundle: .
parameters:
  limit: {type: integer}
jobs:
  count: {run: "python count.py ${{ parameters.limit }}"}
"""


async def test_a_specification_is_kept_changed_shown_and_run_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "street"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(TEXT)
    (folder / "count.py").write_text("print(1)")
    spec = str(folder)
    async with running_controller(tmp_path / "c") as addresses, Client(addresses.grpc) as client:
        at = addresses.grpc
        assert await said(at, "stored", "list", "--namespace", "other") == ""
        told = await said(at, "stored", "create", "street", spec, "--description", "What passes")
        assert told == "street has version 1\n"
        again = await said(at, "stored", "create", "street", spec, "--description", "What passes")
        assert again == told
        error = await said(at, "stored", "submit", "street")
        assert "parameters.limit: it has no value" in error
        name = (await said(at, "stored", "submit", "street", "--set", "limit=3")).strip()
        pipeline = await client.get(name)
        assert pipeline.spec.jobs[0].run == ("python", "count.py", "3")
        assert pipeline.spec.bundle_digest == (await client.get_stored("street")).bundle_digest
        assert "of stored/street/versions/1" in await said(at, "status", name)
        (folder / "count.py").write_text("print(2)")
        told = await said(at, "stored", "update", "street", spec, "--set", "limit=5", "--of", "1")
        assert told == "street has version 2\n"
        (folder / "count.py").write_text("print(3)")
        error = await said(at, "stored", "update", "street", spec, "--of", "1")
        assert "has version 2, and the update is of version 1" in error
        listed = (await said(at, "stored", "list")).splitlines()
        assert len(listed) == 2
        assert listed[1].split()[:2] == ["street", "2"]
        assert "What passes" in listed[1]
        assert len((await said(at, "stored", "versions", "street")).splitlines()) == 3
        assert await said(at, "stored", "show", "street", "--version", "1") == TEXT
        shown = json.loads(await said(at, "stored", "show", "street", "--json"))
        assert (shown["version"], shown["source"]["values"]) == (2, {"limit": "5"})
        ran = json.loads(await said(at, "stored", "submit", "street", "--json"))
        assert ran["pipeline"]["stored"] == "stored/street/versions/2"
        (folder / "pipeline.yaml").write_text(TEXT.replace("integer", "whole"))
        error = await said(at, "stored", "update", "street", spec)
        assert "pipeline.yaml:4:" in error
        assert "1 mistake" in error
        assert await said(at, "stored", "rm", "street") == ""
        assert "there is no stored pipeline 'street'" in await said(at, "stored", "show", "street")
