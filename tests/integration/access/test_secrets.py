"""Secrets of a controller that runs: who may do what, where values are and where they are not."""

import asyncio
import json
import logging
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest

from shoal.channel import USER, channel_options, open_channel
from shoal.client import Client
from shoal.identity import Role
from shoal.model import JobState
from shoal.secret import SecretForm, SecretUse
from shoal.session.feature import Feature
from shoal.spec import Job, Pipeline
from shoal.v1 import secrets_service_pb2 as v1
from shoal.v1 import secrets_service_pb2_grpc as v1_grpc
from tests.integration.access.conftest import Cluster
from tests.integration.access.test_callers import reason_of, refused
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent
from tests.kit.until import until

VALUE, NEWER = b"hunter2-never-shown", b"hunter3-never-shown-either"
SPEC = Pipeline("upload", (Job("push", ("true",), secrets=(SecretUse("TOKEN", "lab-token"),)),))
ABLE = frozenset({Feature.SECRETS.value})
SECONDS = 60


def files_with(folder: Path, *values: bytes) -> list[str]:
    """The files below a folder in which one of the values stands in clear."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(value in path.read_bytes() for value in values)]


def able_agent(cluster: Cluster, name: str = "node-1") -> ScriptedAgent:
    return ScriptedAgent(cluster.address, name, credentials=cluster.credentials(Role.NODE, name))


async def test_a_value_goes_to_the_node_of_its_job_and_is_nowhere_else(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with cluster.client(Role.OPERATOR) as client, able_agent(cluster) as agent:
        kept = await client.set_secret("lab-token", VALUE)
        assert (kept.name, kept.version, kept.creator) == ("lab-token", 1, "operator/ann")
        await agent.hello(features=ABLE)
        submitted = (await client.submit(SPEC)).pipeline
        given = await agent.assignment("push")
        assert dict(given.secrets) == {"lab-token": VALUE}
        for state in (JobState.PREPARING, JobState.RUNNING, JobState.SUCCEEDED):
            await agent.observe(given.ref, state)
        ended = await client.wait(submitted.name, deadline_seconds=SECONDS)
        page = await client.events()
        shown = (
            repr(ended)
            + repr(page)
            + repr(await client.secrets())
            + repr(await client.nodes())
            + caplog.text
        )
        assert VALUE.decode() not in shown
        (told,) = [
            data
            for event in page.events
            if (data := json.loads(event.data_json)).get("method") == "SecretsService.SetSecret"
        ]
        assert (told["namespace"], told["name"]) == ("default", "secrets/lab-token")
        assert told["caller"] == "operator/ann"
    assert files_with(cluster.state, VALUE) == []


async def test_what_begins_later_gets_the_newer_value(cluster: Cluster) -> None:
    async with cluster.client(Role.OPERATOR) as client, able_agent(cluster) as agent:
        await client.set_secret("lab-token", VALUE)
        await agent.hello(features=ABLE)
        await client.submit(SPEC)
        first = await agent.assignment("push")
        assert (await client.set_secret("lab-token", NEWER)).version == 2
        await agent.observe(first.ref, JobState.RUNNING)
        await agent.observe(first.ref, JobState.SUCCEEDED)
        await until(lambda: not agent.assignments, what="the end of the assignment")
        await client.submit(SPEC)
        second = await agent.assignment("push")
        assert (dict(first.secrets), dict(second.secrets)) == (
            {"lab-token": VALUE},
            {"lab-token": NEWER},
        )


async def test_each_role_does_with_secrets_what_it_may(cluster: Cluster) -> None:
    async with (
        cluster.client(Role.SUBMITTER, "ann", "lab") as ann,
        cluster.client(Role.SUBMITTER, "ann", "lab", asks="yard") as strayed,
        cluster.client(Role.VIEWER, "vic", "lab") as viewer,
        cluster.client(Role.VIEWER, "vic", "lab", asks="yard") as curious,
        cluster.client(Role.OPERATOR) as operator,
    ):
        assert (await ann.set_secret("lab-token", VALUE)).creator == "submitter/lab/ann"
        assert [one.name for one in await viewer.secrets()] == ["lab-token"]
        assert await operator.secrets() == (), "that is namespace default"
        for denied in (
            strayed.set_secret("lab-token", VALUE),
            strayed.secrets(),
            strayed.remove_secret("lab-token"),
            curious.secrets(),
            viewer.set_secret("lab-token", VALUE),
            viewer.remove_secret("lab-token"),
            ann.rotate_secret_key(),
        ):
            assert (await refused(denied)).code == "PERMISSION_DENIED"
        assert (await refused(strayed.submit(SPEC))).reason == "OTHER_NAMESPACE"
        unset = await refused(operator.submit(SPEC))
        assert unset.reason == "MISSING_SECRET"
        assert "secret lab-token is not set in namespace default" in unset.message
        await ann.remove_secret("lab-token")
        assert await viewer.secrets() == ()
        assert (await refused(ann.remove_secret("lab-token"))).reason == "UNKNOWN_SECRET"


@pytest.mark.parametrize("value", [b"", b"abc", b"x" * 16_385])
async def test_what_cannot_be_a_secret_is_refused_without_its_value(
    cluster: Cluster, value: bytes
) -> None:
    credentials = cluster.credentials(Role.OPERATOR, "ann")
    async with open_channel(cluster.address, channel_options(USER), credentials) as channel:
        stub = v1_grpc.SecretsServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await stub.SetSecret(v1.SetSecretRequest(name="lab-token", value=value))
    assert reason_of(told.value) == "INVALID_SECRET"
    assert f"has {len(value)} bytes" in str(told.value.details())


async def test_secrets_outlast_restarts_and_rotations_and_need_their_keys(tmp_path: Path) -> None:
    state = tmp_path / "controller"
    file = state / "secrets.keys"
    async with running_controller(state, insecure=False) as addresses:
        cluster = Cluster(addresses.grpc, state)
        async with cluster.client(Role.OPERATOR) as client:
            await client.set_secret("lab-token", VALUE)
            await client.set_secret("other", NEWER)
            before = file.read_text().split()
            _, sealed, unreadable = await client.rotate_secret_key()
            assert (sealed, unreadable) == (2, 0)
            after = file.read_text().split()
            assert len(before) == len(after) == 1
            assert before != after
    async with running_controller(state, insecure=False) as addresses:
        cluster = Cluster(addresses.grpc, state)
        async with cluster.client(Role.OPERATOR) as client, able_agent(cluster) as agent:
            await agent.hello(features=ABLE)
            await client.submit(SPEC)
            assert dict((await agent.assignment("push")).secrets) == {"lab-token": VALUE}
    file.write_text(before[0] + "\n")  # as if the file came from an old backup
    async with running_controller(state, insecure=False) as addresses:
        cluster = Cluster(addresses.grpc, state)
        async with cluster.client(Role.OPERATOR) as client:
            assert [one.unreadable for one in await client.secrets()] == [True, True]
            lost = await refused(client.submit(SPEC))
            assert "which this controller does not have" in lost.message
            assert "shoal secret set lab-token" in lost.message
            _, sealed, unreadable = await client.rotate_secret_key()
            assert (sealed, unreadable) == (0, 2)
            await client.set_secret("lab-token", VALUE)
            assert [one.unreadable for one in await client.secrets()] == [False, True]
            await client.submit(SPEC)
    assert files_with(state, VALUE, NEWER) == []


async def test_a_damaged_file_of_keys_is_told_at_the_start(tmp_path: Path) -> None:
    state = tmp_path / "controller"
    state.mkdir(mode=0o700)
    (state / "secrets.keys").write_text("no key\n")
    with pytest.raises(Exception, match=r"line 1 of .*secrets\.keys is no key of secrets"):
        async with running_controller(state, insecure=False):
            pass


async def test_in_the_clear_no_secret_is_taken_sent_or_given(tmp_path: Path) -> None:
    async with running_controller(tmp_path / "controller") as addresses:
        async with Client(addresses.grpc) as client:
            unsent = await refused(client.set_secret("lab-token", VALUE))
            assert "was not sent" in unsent.message
            answer = await refused(client.submit(SPEC))
            assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "INSECURE")
            assert "secrets travel over TLS alone" in answer.message
        async with open_channel(addresses.grpc, channel_options(USER), None) as channel:
            stub = v1_grpc.SecretsServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await stub.SetSecret(v1.SetSecretRequest(name="lab-token", value=VALUE))
        assert reason_of(told.value) == "INSECURE"


async def test_a_controller_that_lost_its_tls_gives_no_secret(tmp_path: Path) -> None:
    state = tmp_path / "controller"
    async with (
        running_controller(state, insecure=False) as addresses,
        Cluster(addresses.grpc, state).client(Role.OPERATOR) as client,
    ):
        await client.set_secret("lab-token", VALUE)
        submitted = (await client.submit(SPEC)).pipeline
    async with (
        running_controller(state) as addresses,
        Client(addresses.grpc) as client,
        connected_agent(addresses.grpc, features=ABLE) as agent,
    ):
        (verdict,) = await client.explain(f"{submitted.name}/jobs/push")
        assert "secrets travel over TLS alone" in verdict.sentence
        assert not agent.assignments


async def test_the_command_takes_values_from_stdin_and_files_and_never_shows_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    async def shoal(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shoal.cli", *words, "--namespace", "lab"),
            env={
                **os.environ,
                "SHOAL_CONTROLLER": cluster.address,
                "SHOAL_IDENTITY": str(cluster.state / "identity" / "operator"),
            },
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), SECONDS)
        assert VALUE not in out + err
        return cast("int", process.returncode), out.decode(), err.decode()

    key = tmp_path / "key.bin"
    key.write_bytes(b"\x00\xff" + VALUE + b"\n")
    assert (await shoal("secret", "set", "lab-token", stdin=VALUE + b"\n"))[0] == 0
    status, _, err = await shoal("secret", "set", "lab-key", "--file", str(key))
    assert (status, "has version 1" in err) == (0, True)
    assert "set again" not in (await shoal("secret", "list"))[1]
    assert "lab-token" in (await shoal("secret", "list"))[1]
    spec = Pipeline(
        "upload",
        (
            Job(
                "push",
                ("true",),
                secrets=(
                    SecretUse("TOKEN", "lab-token"),
                    SecretUse("KEY", "lab-key", SecretForm.FILE),
                ),
            ),
        ),
    )
    async with cluster.client(Role.OPERATOR, asks="lab") as client, able_agent(cluster) as agent:
        await agent.hello(features=ABLE)
        await client.submit(spec)
        given = await agent.assignment("push")
        assert dict(given.secrets) == {"lab-token": VALUE, "lab-key": key.read_bytes()}
        untextual = Pipeline("p", (Job("a", ("x",), secrets=(SecretUse("KEY", "lab-key"),)),))
        assert "as: file" in (await refused(client.submit(untextual))).message
    status, _, err = await shoal("secret", "set", "lab-token", VALUE.decode())
    assert (status, "a value is no word of the command line" in err) == (2, True)
    status, _, err = await shoal("secret", "set", "lab-token", stdin=b"ab\n")
    assert (status, "has 2 bytes; give 4 at least" in err) == (2, True)
    status, _, err = await shoal("secret", "set", "lab-token", "--file", str(tmp_path / "gone"))
    assert (status, "cannot be read" in err) == (1, True)
    assert "seals 2 secrets now" in (await shoal("secret", "rotate-key"))[1]
    assert (await shoal("secret", "rm", "lab-key"))[0] == 0
    assert "lab-key" not in (await shoal("secret", "list", "--json"))[1]
