"""Stored pipelines of a controller that runs: kept, found again after a restart, submitted by name."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shoal import bundle
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.identity import Role
from shoal.spec import Job, Pipeline
from shoal.spec_text import SpecText
from shoal.v1 import stored_pipelines_service_pb2 as v1
from tests.integration.access.conftest import Cluster
from tests.kit.running_controller import running_controller

TEXT = """\
name: street
parameters:
  scene: {default: street}
  limit: {type: integer}
jobs:
  count: {run: "count ${{ parameters.scene }} ${{ parameters.limit }}"}
"""
NEWER = TEXT.replace('run: "count', 'run: "count --fast')


async def refused(awaiting: object, reason: str) -> ShoalError:
    with pytest.raises(ShoalError) as error:
        await awaiting  # type: ignore[misc]
    assert error.value.reason == reason, error.value
    return error.value


async def test_a_name_goes_through_versions_and_a_restart_and_runs(tmp_path: Path) -> None:
    async with running_controller(tmp_path / "c") as at, Client(at.grpc) as client:
        first = await client.store("street", SpecText(TEXT), description="What passes by")
        assert (first.version, first.newest_version, first.description) == (1, 1, "What passes by")
        assert first.source == SpecText(TEXT)
        assert [(one.name, one.default) for one in first.parameters] == [
            ("scene", "street"),
            ("limit", None),
        ]
        second = await client.update_stored("street", SpecText(NEWER, {"limit": "7"}), version=1)
        assert second.version == 2
        error = await refused(
            client.update_stored("street", SpecText(TEXT), version=1), "VERSION_CHANGED"
        )
        assert (error.code, error.metadata["version"]) == ("ABORTED", "2")
        error = await refused(client.store("street", SpecText(TEXT)), "STORED_PIPELINE_EXISTS")
        assert error.code == "ALREADY_EXISTS"
    async with running_controller(tmp_path / "c") as at, Client(at.grpc) as client:
        assert await client.get_stored("street", 1) == replace(first, newest_version=2)
        assert (await client.get_stored("street")).source == SpecText(NEWER, {"limit": "7"})
        versions = await client.stored_versions("street")
        assert [(one.version, one.newest_version, one.source) for one in versions] == [
            (2, 2, None),
            (1, 2, None),
        ]
        ran = (await client.submit_stored("street")).pipeline
        assert ran.stored == "stored/street/versions/2"
        assert ran.spec.jobs[0].run == ("count", "--fast", "street", "7")
        ran = (
            await client.submit_stored("street", version=1, values={"limit": "3", "scene": "yard"})
        ).pipeline
        assert ran.stored == "stored/street/versions/1"
        assert ran.spec.jobs[0].run == ("count", "yard", "3")
        listed = [one async for one in client.list()]
        assert sorted(one.stored for one in listed) == [
            "stored/street/versions/1",
            "stored/street/versions/2",
        ]
        await client.delete_stored("street", version=2)
        await refused(client.get_stored("street"), "UNKNOWN_STORED_PIPELINE")
        assert (await client.store("street", SpecText(TEXT))).version == 3


async def test_what_cannot_run_is_refused_as_it_is_stored_or_submitted(client: Client) -> None:
    wrong = SpecText(TEXT.replace("integer", "whole"))
    error = await refused(client.store("street", wrong), "INVALID_SPEC")
    assert "4:" in error.message
    await refused(client.store("UPPER", SpecText(TEXT)), "INVALID_NAME")
    await refused(client.store("street", SpecText(TEXT), description="x" * 1_001), "INVALID_FIELD")
    unknown = SpecText(TEXT + "bundle: .\n", bundle_digest="a" * 64)
    error = await refused(client.store("street", unknown), "BUNDLE_MISSING")
    assert "upload" in error.message
    await refused(client.update_stored("street", SpecText(TEXT), version=0), "INVALID_FIELD")
    await refused(
        client.update_stored("street", SpecText(TEXT), version=1), "UNKNOWN_STORED_PIPELINE"
    )
    await client.store("street", SpecText(TEXT))
    error = await refused(client.submit_stored("street"), "INVALID_SPEC")
    assert "parameters.limit" in error.message
    error = await refused(
        client.submit_stored("street", values={"limit": "3", "colour": "red"}), "INVALID_SPEC"
    )
    assert "'colour'" in error.message
    error = await refused(client.submit_stored("street", version=2), "UNKNOWN_VERSION")
    assert "kept are 1 to 1" in error.message
    await refused(client.submit_stored("stret"), "UNKNOWN_STORED_PIPELINE")
    many = {f"p{number}": "x" for number in range(257)}
    await refused(client.submit_stored("street", values=many), "INVALID_FIELD")
    assert [one async for one in client.list()] == []


async def test_a_specification_is_stored_as_it_is_and_takes_no_values(client: Client) -> None:
    spec = Pipeline("plain", (Job("a", ("true",)),))
    kept = await client.store("plain", spec)
    assert (kept.source, kept.parameters) == (spec, ())
    assert (await client.submit_stored("plain")).pipeline.spec == spec
    error = await refused(client.submit_stored("plain", values={"limit": "3"}), "INVALID_SPEC")
    assert "declares no parameters" in error.message


async def test_a_request_id_makes_one_pipeline_although_the_newest_version_is_another(
    client: Client,
) -> None:
    await client.store("street", SpecText(TEXT, {"limit": "1"}))
    first = await client.submit_stored("street", request_id="monday")
    await client.update_stored("street", SpecText(NEWER), version=1)
    again = await client.submit_stored("street", request_id="monday")
    assert (again.repeated, again.pipeline.name) == (True, first.pipeline.name)
    await client.delete_stored("street")
    again = await client.submit_stored("street", request_id="monday")
    assert (again.repeated, again.pipeline.name) == (True, first.pipeline.name)
    await refused(client.submit_stored("street", request_id="tuesday"), "UNKNOWN_STORED_PIPELINE")


async def test_of_many_updates_at_once_one_is_taken(client: Client) -> None:
    await client.store("street", SpecText(TEXT))
    updates = (
        client.update_stored("street", SpecText(f"{TEXT}# {number}\n"), version=1)
        for number in range(8)
    )
    answers = await asyncio.gather(*updates, return_exceptions=True)
    lost = [one for one in answers if isinstance(one, ShoalError)]
    assert (len(answers) - len(lost), {one.reason for one in lost}) == (1, {"VERSION_CHANGED"})
    (kept,) = (one for one in answers if not isinstance(one, BaseException))
    assert (await client.get_stored("street")).source == kept.source


async def test_names_are_listed_page_by_page_while_they_come_and_go(client: Client) -> None:
    for name in ("d", "b", "a", "c", "e"):
        await client.store(name, Pipeline("plain", (Job("a", ("true",)),)))
    seen: list[str] = []
    async for one in client.list_stored(page_size=2):
        seen.append(one.name)
        assert one.source is None
        if one.name == "b":
            await client.delete_stored("a")
            await client.store("bb", Pipeline("plain", (Job("a", ("true",)),)))
    assert seen == ["a", "b", "bb", "c", "d", "e"]
    error = await refused(_page(client, "../x"), "INVALID_PAGE_TOKEN")
    assert "none of ours" in error.message


async def _page(client: Client, token: str) -> object:
    request = v1.ListStoredPipelinesRequest(page_token=token)
    return await client._call(client._held.stored.ListStoredPipelines, request)


async def test_the_bundle_of_a_stored_pipeline_stays_and_that_of_a_deleted_one_goes(
    tmp_path: Path,
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("print(1)")
    text = "name: read\nbundle: .\njobs:\n  a: {run: python a.py}\n"
    async with running_controller(tmp_path / "c") as at, Client(at.grpc) as client:
        with bundle.pack(bundle.BundleFolder(tmp_path / "code"), tmp_path) as packed:
            await client.ensure_bundle(packed)
        kept = await client.store("read", SpecText(text, bundle_digest=packed.digest))
        assert kept.bundle_digest == packed.digest
        stored = tmp_path / "c" / "archive" / "bundles" / "sha256" / packed.digest

        def grow_old() -> None:
            then = time.time() - 400 * 86_400
            os.utime(stored, (then, then))

        grow_old()
        assert (await client.collect_garbage(dry_run=False)).objects == 0
        await client.delete_stored("read")
        grow_old()
        assert (await client.collect_garbage(dry_run=False)).objects == 1
        assert not stored.exists()
        again = SpecText(text, bundle_digest=packed.digest)
        await refused(client.store("read", again), "BUNDLE_MISSING")


async def test_roles_are_those_of_submissions(tmp_path: Path) -> None:
    async with running_controller(tmp_path / "c", insecure=False) as at:
        cluster = Cluster(at.grpc, tmp_path / "c")
        async with (
            cluster.client(Role.SUBMITTER, "ann", "lab") as ann,
            cluster.client(Role.VIEWER, "bob", "lab") as bob,
            cluster.client(Role.SUBMITTER, "eve", "other", asks="lab") as eve,
        ):
            kept = await ann.store("street", SpecText(TEXT, {"limit": "1"}))
            assert (kept.creator, kept.namespace) == ("submitter/lab/ann", "lab")
            assert [one.name async for one in bob.list_stored()] == ["street"]
            assert (await bob.get_stored("street")).source == kept.source
            for call in (
                bob.store("mine", SpecText(TEXT)),
                bob.update_stored("street", SpecText(NEWER), version=1),
                bob.submit_stored("street"),
                bob.delete_stored("street"),
                bob.validate(SpecText(TEXT)),
            ):
                await refused(call, "NOT_ALLOWED")
            await refused(eve.get_stored("street"), "OTHER_NAMESPACE")
            ran = (await ann.submit_stored("street")).pipeline
            assert ran.creator == "submitter/lab/ann"
        async with cluster.client(Role.OPERATOR, "root", asks="lab") as root:
            told = (await root.events()).events
            assert any('"stored/street/versions/1"' in one.data_json for one in told)
