"""Specifications that a controller reads: what it says of them, and what it runs."""

import asyncio
from pathlib import Path

import pytest

from control.front.source_reading import WAITING_MAX
from shoal import bundle
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import PipelineState
from shoal.parameter import ParameterType
from shoal.spec import Job, Pipeline
from shoal.spec_report import SpecReport
from shoal.spec_text import TEXT_CHARACTERS_MAX, SpecText
from shoal.specfile.load import parse

TEXT = """\
name: street
parameters:
  scene: {default: street, choices: [street, yard], description: What is seen}
  limit: {type: integer}
jobs:
  count:
    run: count ${{ parameters.scene }} ${{ parameters.limit }}
    timeout: 90s
"""


async def refused(awaiting: object) -> ShoalError:
    with pytest.raises(ShoalError) as error:
        await awaiting  # type: ignore[misc]
    return error.value


async def test_a_text_is_told_as_it_would_run(client: Client) -> None:
    found = await client.validate(SpecText(TEXT, {"limit": "20"}))
    assert (found.problems, found.left_out) == ((), 0)
    assert found.pipeline == parse(TEXT, "x", Path(), {"limit": 20}).pipeline
    assert found.pipeline is not None
    assert found.pipeline.jobs[0].run == ("count", "street", "20")
    scene, limit = found.parameters
    assert (scene.name, scene.default, scene.choices) == ("scene", "street", ("street", "yard"))
    assert scene.description == "What is seen"
    assert (limit.type, limit.default) == (ParameterType.INTEGER, None)
    assert [one async for one in client.list()] == []


async def test_every_mistake_has_its_line_and_its_field(client: Client) -> None:
    text = TEXT.replace("90s", "soon").replace("    run:", "    colour: red\n    run:")
    found = await client.validate(SpecText(text, {"scene": "moon"}))
    assert found.pipeline is None
    places = [(one.line, one.field) for one in found.problems]
    assert places == [
        (3, "parameters.scene"),
        (4, "parameters.limit"),
        (7, "jobs.count.colour"),
        (9, "jobs.count.timeout"),
    ]
    assert "'soon'" in found.problems[-1].message
    assert "'moon' of the request" in found.problems[0].message
    error = await refused(client.submit_source(SpecText(text)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert "4:" in error.message
    assert "(and 2 more: ValidateSpec tells all)" in error.message
    assert error.metadata["jobs.count.timeout"].startswith("9:14: jobs.count.timeout:")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("a: [", "this is not YAML"),
        ("!!python/object/apply:os.system [touch /tmp/evil]", "the tag"),
        (
            "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + "d: [" + "*c, " * 12_000 + "*c]",
            "aliases",
        ),
        ("a: &a [*a]", "contains itself"),
        ("[" * 2_000, "nested deeper"),
        ("\x01", "not allowed in YAML"),
        ("name: x\njobs: {a: {run: 'x ${{ parameters.none }}'}}", "there is no parameter 'none'"),
    ],
)
async def test_a_text_that_means_harm_is_a_mistake_like_another(
    client: Client, text: str, told: str
) -> None:
    found = await client.validate(SpecText(text))
    assert found.pipeline is None
    assert told in found.problems[0].message
    assert (await refused(client.submit_source(SpecText(text)))).reason == "INVALID_SPEC"


async def test_a_text_that_is_too_long_or_none_is_refused(client: Client) -> None:
    error = await refused(client.validate(SpecText("#" * (TEXT_CHARACTERS_MAX + 1))))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert f"{TEXT_CHARACTERS_MAX} at most" in error.message
    error = await refused(client.validate(SpecText("a: b", {f"p{n}": "x" for n in range(257)})))
    assert "257 values, 256 at most" in error.message
    error = await refused(client.validate(SpecText("a: b", bundle_digest="../../etc")))
    assert "not a SHA-256" in error.message


async def test_no_folder_of_the_controller_is_read_and_a_bundle_is_one_that_was_uploaded(
    client: Client, tmp_path: Path
) -> None:
    text = "name: read\nbundle: /\njobs:\n  a: {run: python a.py}\n"
    (problem,) = (await client.validate(SpecText(text))).problems
    assert (problem.line, problem.field) == (2, "bundle")
    assert "a controller reads no folder" in problem.message
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "a.py").write_text("print(1)")
    with bundle.pack(bundle.BundleFolder(folder), tmp_path) as packed:
        given = SpecText(text, bundle_digest=packed.digest)
        (problem,) = (await client.validate(given)).problems
        assert (problem.line, problem.field) == (2, "bundle")
        assert f"bundle {packed.digest} is not in the archive" in problem.message
        error = await refused(client.submit_source(given))
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BUNDLE_MISSING")
        await client.ensure_bundle(packed)
    assert (await client.validate(given)).problems == ()
    submitted = await client.submit_source(given)
    assert submitted.pipeline.spec.bundle_digest == given.bundle_digest
    other = SpecText("name: read\njobs:\n  a: {run: 'true'}\n", bundle_digest=packed.digest)
    (problem,) = (await client.validate(other)).problems
    assert "names no bundle" in problem.message


async def test_what_this_cluster_cannot_give_is_told_too(client: Client) -> None:
    text = (
        "name: read\njobs:\n  a:\n    run: 'true'\n    secrets: {TOKEN: lab-token}\n"
        "    inputs:\n      video: {source: s3://elsewhere/video.avi}\n"
    )
    found = await client.validate(SpecText(text))
    assert [(one.line, one.field) for one in found.problems] == [
        (5, "jobs.a.secrets"),
        (7, "jobs.a.inputs.video.source"),
    ]
    assert "--source-buckets elsewhere" in found.problems[1].message
    assert found.pipeline is not None
    assert (await refused(client.submit_source(SpecText(text)))).reason == "INVALID_SOURCE"


async def test_a_request_id_makes_one_pipeline_however_its_specification_was_sent(
    client: Client,
) -> None:
    text = SpecText(TEXT, {"limit": "3"})
    first = await client.submit_source(text, request_id="monday")
    assert (first.repeated, first.pipeline.state) == (False, PipelineState.QUEUED)
    again = await client.submit_source(text, request_id="monday")
    assert (again.repeated, again.pipeline.name) == (True, first.pipeline.name)
    read = await client.submit(first.pipeline.spec, request_id="monday")
    assert (read.repeated, read.pipeline.name) == (True, first.pipeline.name)
    as_spec = await client.submit_source(first.pipeline.spec, request_id="monday")
    assert (as_spec.repeated, as_spec.pipeline.name) == (True, first.pipeline.name)
    error = await refused(client.submit_source(SpecText(TEXT, {"limit": "4"}), request_id="monday"))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


async def test_a_specification_that_is_read_already_is_looked_at_in_the_same_way(
    client: Client,
) -> None:
    found = await client.validate(Pipeline("UPPER", (Job("a", ("true",)),)))
    (problem,) = found.problems
    assert (problem.field, problem.line) == ("name", 0)
    error = await refused(client.submit_source(Pipeline("UPPER", (Job("a", ("true",)),))))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    found = await client.validate(Pipeline("two", (Job("a", ("true",)), Job("a", ("true",)))))
    assert [(one.line, one.field) for one in found.problems] == [(0, "jobs.a")]
    assert found.pipeline is None


async def test_many_long_texts_at_once_keep_no_other_call_waiting(client: Client) -> None:
    long = SpecText("a: [" + "1," * ((TEXT_CHARACTERS_MAX - 10) // 2) + "1]")
    waiting = [asyncio.create_task(client.validate(long)) for _ in range(WAITING_MAX + 8)]
    await client.nodes()
    submitted = await client.submit(Pipeline("between", (Job("a", ("true",)),)))
    assert submitted.pipeline.state is PipelineState.QUEUED
    done = [one for one in waiting if one.done()]
    assert len(done) < len(waiting)
    for one in waiting:
        one.cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, SpecReport):
            assert answer.problems
        else:
            assert isinstance(answer, asyncio.CancelledError | ShoalError)
