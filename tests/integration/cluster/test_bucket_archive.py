"""A cluster whose archive is a bucket: agents hold no keys, and readers trust the manifest."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from services.archive.s3_server import S3Server
from services.archive.s3_store import s3_client
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import PipelineState, ReasonCode
from shoal.spec import FileInput, Job, Pipeline
from tests.kit.cluster import contents, describe, job_of, running_cluster, submit
from tests.kit.running_controller import running_controller
from tests.kit.s3_servers import CREDENTIALS, make_bucket
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

_DEADLINE = 60.0
_SPEC = """
    name: from-a-bucket
    bundle: .
    jobs:
      count:
        run: sh -c 'wc -c < data/input > results/size; env | grep -c AWS_ > results/keys; true'
        inputs: {{input: {{source: "s3://{bucket}/archive/default/input", path: data/input, sha256: {sha256}}}}}
"""


async def test_inputs_come_from_a_bucket_and_results_go_to_one(
    tmp_path: Path, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases E3 and E7: fetched by checksum, archived under a committed manifest."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = S3Server(endpoint=moto_endpoint)
    bucket = await make_bucket(server)
    data = os.urandom(300_000)
    async with s3_client(server) as s3:
        await s3.put_object(Bucket=bucket, Key="archive/default/input", Body=data)
        archive = f"s3://{bucket}/archive?endpoint={moto_endpoint}"
        async with running_cluster(tmp_path / "cluster", archive=archive) as (_, client):
            spec = _SPEC.format(bucket=bucket, sha256=hashlib.sha256(data).hexdigest())
            submitted = await submit(client, tmp_path / "good", spec, {})
            ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
            assert ended.state is PipelineState.SUCCEEDED, describe(ended)
            size = await contents(client, ended, "results/size", tmp_path / "size")
            assert size.strip() == b"300000"
            keys = await contents(client, ended, "results/keys", tmp_path / "keys")
            assert keys.strip() == b"0"

            manifest = job_of(ended, "count").manifest
            assert manifest is not None

            async def stored() -> bytes | None:
                listed = await s3.list_objects_v2(Bucket=bucket, Prefix=f"archive/{manifest.key}")
                for found in listed.get("Contents", []):
                    answer = await s3.get_object(Bucket=bucket, Key=found.get("Key", ""))
                    return await answer["Body"].read()
                return None

            found = await until(stored, what="the manifest is in the bucket")
            assert found is not None
            written = json.loads(found)
            assert {artifact["path"] for artifact in written["artifacts"]} >= {"results/size"}
            for artifact in written["artifacts"]:
                answer = await s3.get_object(Bucket=bucket, Key=f"archive/{artifact['key']}")
                body = await answer["Body"].read()
                assert hashlib.sha256(body).hexdigest() == artifact["sha256"]

            wrong = _SPEC.format(bucket=bucket, sha256="0" * 64)
            submitted = await submit(client, tmp_path / "wrong", wrong, {})
            ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
            job = job_of(ended, "count")
            assert job.reason.code is ReasonCode.ARTIFACT_CHECKSUM, describe(ended)


async def test_s3_sources_are_those_of_listed_buckets_and_of_the_namespace(
    tmp_path: Path, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`s3://any/key` was presigned with the controller's credentials, whatever the bucket."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = await make_bucket(S3Server(endpoint=moto_endpoint))
    archive = f"s3://{bucket}/main?endpoint={moto_endpoint}"

    def reading(*sources: str) -> Pipeline:
        files = tuple(FileInput(f"f{n}", one, f"in/{n}") for n, one in enumerate(sources))
        return Pipeline("files", (Job("a", ("true",), files=files),))

    async with (
        running_controller(
            tmp_path / "c", archive=archive, source_buckets=("models",)
        ) as controller,
        Client(controller.grpc) as client,
        connected_agent(controller.grpc) as agent,
    ):
        good = ("s3://models/a b.bin", f"s3://{bucket}/main/default/pipelines/p/x")
        await client.submit(reading(*good))
        urls = dict((await agent.assignment("a")).file_urls)
        assert urls.keys() == {"f0", "f1"}
        assert "a%20b.bin" in urls["f0"]
        assert "X-Amz-Signature=" in urls["f0"]
        for bad, words in (
            ("s3://secrets/key", "bucket 'secrets'.*--source-buckets"),
            (f"s3://{bucket}/main/other/pipelines/p/x", "namespace 'default'"),
            (f"s3://{bucket}/main/default/../other/x", "'..'|namespace 'default'"),
            (f"s3://{bucket}/main/default%2F..%2Fother/x", "'..'|namespace 'default'"),
            ("other/pipelines/p/x", "namespace 'default'"),
        ):
            with pytest.raises(ShoalError, match=words) as refused:
                await client.submit(reading(bad))
            assert refused.value.reason == "INVALID_SOURCE", refused.value
