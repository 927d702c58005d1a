"""From a commit to the archive and the broker, while either is away."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from control.controller import ControllerAddresses
from services.archive.manifest import manifest_key
from services.archive.s3_server import S3Server
from services.archive.s3_store import s3_client
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.names import JobRef
from shoal.spec import Job, Output, Pipeline, StreamInput
from shoal.v1.pipeline_pb2 import StreamProgress
from shoal.v1.session_service_pb2 import AgentMessage, AttemptProgress
from shoal.view import PipelineView
from tests.integration.events.test_outbox_shell import bodies, subscribed
from tests.kit.controller_process import ControllerProcess
from tests.kit.mosquitto import Mosquitto
from tests.kit.programs import program
from tests.kit.running_controller import running_controller
from tests.kit.s3_servers import CREDENTIALS, make_bucket, moto_endpoint
from tests.kit.scripted_agent import connected_agent
from tests.kit.site_authority import SiteAuthority
from tests.kit.tcp_proxy import TcpProxy
from tests.kit.until import until

__all__ = ["moto_endpoint"]

ONE = Pipeline("one", (Job("a", ("true",)),))


async def succeed(addresses: ControllerAddresses, client: Client) -> PipelineView:
    """Run one pipeline to its end, as far as the controller's own store is concerned."""
    return await succeed_at(addresses.grpc, client)


async def succeed_at(grpc: str, client: Client) -> PipelineView:
    """Run one pipeline to its end at this controller."""
    name = (await client.submit(ONE)).pipeline.name
    async with connected_agent(grpc) as agent:
        await agent.run_to_success("a", {"results/x": b"hello"})
    ended = await client.wait(name, deadline_seconds=20)
    assert ended.state is PipelineState.SUCCEEDED
    return ended


def ids(messages: Sequence[aiomqtt.Message]) -> list[str]:
    return [str(body["id"]) for body in bodies(messages)]


async def test_every_event_arrives_though_the_broker_was_away(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    topic = "shoal/default/pipelines/#"
    async with (
        subscribed(mosquitto.port, topic) as found,
        running_controller(tmp_path / "controller", broker=url) as addresses,
        Client(addresses.grpc) as client,
    ):
        first = await succeed(addresses, client)
        await until(lambda: first.final_event_id in ids(found), what="the first final event")
        await until(lambda: state_is(client, f"connected to {url}"), what="the state")
        mosquitto.kill()
        second = await succeed(addresses, client)
        await until(lambda: says_waiting(client), what="the state says that events wait")
        await asyncio.to_thread(mosquitto.start)
        await until(lambda: second.final_event_id in ids(found), 30, "the second final event")
        await until(lambda: all_published(client), what="an empty outbox")
        # In order for each subject, with an envelope of its own, and one final event id.
        own = f"pipelines/{second.id}"
        said = [body for body in bodies(found) if body["subject"] == own]
        numbers = [int(str(body["sequence"])) for body in said]
        assert list(dict.fromkeys(numbers)) == sorted(set(numbers))
        finals = {body["id"] for body in said if body["type"] == "shoal.pipeline.succeeded"}
        assert finals == {second.final_event_id}
        data: Any = said[-1]["data"]
        assert data["artifacts"][0]["path"] == "results/x"


async def test_k9_an_event_of_many_artifacts_holds_up_no_other(tmp_path: Path) -> None:
    """K9: a broker with `max_packet_size 20000`, events of twice that (60 long names).

    One that may not be published says so, and waits.
    """
    access = tmp_path / "access"
    access.write_text("topic readwrite shoal/controllers/#\ntopic readwrite shoal/default/#\n")
    lines = ("allow_anonymous true", "max_packet_size 20000", f"acl_file {access}")
    broker = Mosquitto(tmp_path / "mosquitto", "\n".join(lines))
    await asyncio.to_thread(broker.start)
    other = Pipeline("two", (Job("b", ("true",)),))
    try:
        async with (
            subscribed(broker.port, "shoal/default/pipelines/+/events") as found,
            running_controller(
                tmp_path / "controller", broker=f"mqtt://127.0.0.1:{broker.port}"
            ) as addresses,
            Client(addresses.grpc) as client,
            Client(addresses.grpc, namespace="denied") as denied,
            connected_agent(addresses.grpc) as agent,
        ):
            large = (await client.submit(ONE)).pipeline.name
            results = {f"results/{'x' * 200}{number}": b"x" for number in range(60)}
            await agent.run_to_success("a", results)
            big = await client.wait(large, deadline_seconds=60)
            hidden = (await denied.submit(other)).pipeline.name
            await until(lambda: refused(denied), 20, "the refusal told")
            await denied.cancel(hidden)
            small = (await client.submit(replace(ONE, name="three"))).pipeline.name
            await client.cancel(small)
            last = await client.wait(small, deadline_seconds=60)
            finals = {big.final_event_id, last.final_event_id}
            await until(lambda: finals <= {*ids(found)}, 30, "both final events")
            [data] = [body["data"] for body in bodies(found) if body["id"] == big.final_event_id]
            cut: Any = data
            assert cut["cut"] is True
            assert cut["artifacts_total"] == 60
            assert 0 < len(cut["artifacts"]) < 60
            assert cut["manifests"] == f"default/pipelines/{big.id}/jobs/*/manifest.json"
            log = broker.log.read_text()
            assert log.count("as shoal-controller (") == 1, "dialled once"
    finally:
        broker.stop()


async def test_u10_a_node_that_flaps_while_the_broker_is_away_is_told_of_once(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """It goes down and comes back without a broker: one message then, which the broker retains."""
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    settings = {"lease_seconds": 1.0, "heartbeat_seconds": 0.2}
    async with (
        subscribed(mosquitto.port, "shoal/nodes/node-1/events") as found,
        running_controller(tmp_path / "controller", broker=url, **settings) as addresses,
        Client(addresses.grpc) as client,
    ):

        async def told(state: str) -> bool:
            events = (await client.events(page_size=1000)).events
            last = [event.type for event in events if event.subject == "nodes/node-1"][-1:]
            return last == [f"shoal.node.{state}"]

        async with connected_agent(addresses.grpc):
            await until(lambda: bodies(found), 30, "the node is up")
        mosquitto.kill()
        await until(lambda: says_unreachable(client), 30, "the broker is away")
        await until(lambda: told("down"), 30, "the node is down")
        async with connected_agent(addresses.grpc) as agent:

            async def beaten(so: Awaitable[object]) -> bool:
                await agent.send()
                return bool(await so)

            async def retained() -> object:
                return bodies(kept)

            await until(lambda: beaten(told("back")), 30, "the node is back")
            await asyncio.to_thread(mosquitto.start)
            await until(lambda: beaten(all_published(client)), 60, "an empty outbox")
            async with subscribed(mosquitto.port, "shoal/nodes/+/state", "other") as kept:
                await until(lambda: beaten(retained()), 20, "the state is retained")
                assert [body["type"] for body in bodies(kept)] == ["shoal.node.back"]
        types = {str(body["id"]): body["type"] for body in bodies(found)}
        assert list(types.values()) == ["shoal.node.up", "shoal.node.back"]


async def test_u11_a_job_without_a_node_and_a_stream_that_stands_still_are_told_of(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    flowing = Pipeline(
        "flowing",
        (
            Job("a", ("true",), outputs=(Output("out"),)),
            Job("b", ("true",), streams=(StreamInput("in", "a", "out"),)),
        ),
    )
    async with (
        subscribed(mosquitto.port, "shoal/default/pipelines/+/jobs/+/events") as found,
        running_controller(
            tmp_path / "controller",
            broker=f"mqtt://127.0.0.1:{mosquitto.port}",
            unplaced_seconds=0.3,
            still_seconds=0.5,
        ) as addresses,
        Client(addresses.grpc) as client,
    ):
        await client.submit(flowing)
        await until(lambda: told(found, "a", "unplaced"), 30, "no node")
        assert "start an agent" in told(found, "a", "unplaced")[0]["reason"]["message"]
        async with connected_agent(addresses.grpc) as agent:
            ref = (await agent.assignment("a")).ref
            await until(lambda: told(found, "a", "placed"), 30, "a node")
            await agent.observe(ref, JobState.RUNNING)

            async def send(records: int) -> None:
                stream = StreamProgress(port="out", output=True, records=records)
                said = AttemptProgress(
                    attempt=ref.attempt, namespace="default", epoch=ref.epoch, streams=[stream]
                )
                await agent.send(AgentMessage(progress=said))

            await send(7)
            await until(lambda: told(found, "a", "still"), 30, "it stands still")
            assert told(found, "a", "still")[0]["streams"] == [
                {"port": "out", "output": True, "records": 7}
            ]
            await send(8)
            await until(lambda: told(found, "a", "flows"), 30, "it flows")


def told(messages: Sequence[aiomqtt.Message], job: str, state: str) -> list[Any]:
    """The data of the events that say that a job is in a state."""
    data: list[Any] = [body["data"] for body in bodies(messages)]
    return [one for one in data if (one["job"], one["state"]) == (job, state)]


async def refused(client: Client) -> bool:
    return any("Not authorized" in event.problem for event in (await client.events()).events)


async def state_is(client: Client, sentence: str) -> bool:
    return (await client.events()).publisher_state == sentence


async def says_waiting(client: Client) -> bool:
    state = (await client.events()).publisher_state
    return "unreachable since" in state and "events wait (" in state


async def says_unreachable(client: Client) -> bool:
    return "unreachable since" in (await client.events()).publisher_state


async def all_published(client: Client) -> bool:
    return all(event.published for event in (await client.events(page_size=1000)).events)


async def test_events_of_a_dead_controller_leave_with_the_next(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with (
        running_controller(tmp_path / "controller") as addresses,
        Client(addresses.grpc) as client,
    ):
        ended = await succeed(addresses, client)
        assert "kept in the outbox" in (await client.events()).publisher_state
    async with (
        subscribed(mosquitto.port, "shoal/default/pipelines/+/events") as found,
        running_controller(tmp_path / "controller", broker=f"mqtt://127.0.0.1:{mosquitto.port}"),
    ):
        await until(lambda: ended.final_event_id in ids(found), 20, "the final event")


async def test_an_archive_in_a_bucket_and_an_event_that_waits_for_it(
    mosquitto: Mosquitto,
    moto_endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = await make_bucket(S3Server(moto_endpoint))
    async with (
        TcpProxy(moto_endpoint.removeprefix("http://")) as proxy,
        running_controller(
            tmp_path / "controller",
            archive=f"s3://{bucket}/cluster?endpoint=http://{proxy.address}",
            broker=f"mqtt://127.0.0.1:{mosquitto.port}",
        ) as addresses,
        Client(addresses.grpc) as client,
        subscribed(mosquitto.port, "shoal/default/pipelines/#") as found,
    ):
        assert addresses.objects == ""
        name = (await client.submit(ONE)).pipeline.name
        async with connected_agent(addresses.grpc) as agent:
            ref = (await agent.assignment("a")).ref
            artifacts = await agent.upload(ref, {"results/x": b"hello", "stdout": b"said"})
            proxy.open = False
            proxy.cut()
            await agent.observe(ref, JobState.SUCCEEDED, artifacts=artifacts)
            ended = await client.wait(name, deadline_seconds=20)
            # Committed, and nobody is told before the manifest can be read.
            assert ended.state is PipelineState.SUCCEEDED
            key = f"cluster/{manifest_key(JobRef('default', ended.id, 'a'))}"
            assert not any("succeeded" in identity for identity in ids(found))
            proxy.open = True
            await until(lambda: ended.final_event_id in ids(found), 60, "the final event")
        async with s3_client(S3Server(moto_endpoint)) as s3:
            response = await s3.get_object(Bucket=bucket, Key=key)
            stored = await response["Body"].read()
        manifest = json.loads(stored)
        assert [artifact["path"] for artifact in manifest["artifacts"]] == ["results/x", "stdout"]
        assert manifest["attempt"] == ref.attempt


async def test_the_password_of_the_broker_comes_from_a_file_and_is_told_of_elsewhere(
    tmp_path: Path,
) -> None:
    """FAULTS, others: it stood in the process list."""
    passwords, word = tmp_path / "passwords", tmp_path / "word"
    made = [program("mosquitto_passwd"), "-b", "-c", str(passwords), "me", "s3cret"]
    await asyncio.to_thread(subprocess.run, made, check=True)
    word.write_text("s3cret\n")
    broker = Mosquitto(tmp_path / "mosquitto", f"allow_anonymous false\npassword_file {passwords}")
    await asyncio.to_thread(broker.start)
    here = f"127.0.0.1:{broker.port}"
    try:
        async with (
            ControllerProcess(
                tmp_path, "--mqtt", f"mqtt://me@{here}", "--mqtt-password-file", str(word)
            ) as controller,
            Client(controller.grpc) as client,
        ):
            await until(lambda: state_is(client, f"connected to mqtt://{here}"), 30, "the broker")
            assert "on the command line" not in controller.log()
            controller.end(signal.SIGTERM)
            await controller.start("--mqtt", f"mqtt://me:s3cret@{here}", "--gossip-key", "5a" * 16)
            said = [line for line in controller.log().splitlines() if "on the command line" in line]
            assert ["--mqtt" in line for line in said] == [False, True]
            assert "--gossip-key " in said[0]
            assert "s3cret" not in controller.log()
    finally:
        broker.stop()


async def test_what_is_wrong_with_a_site_s_broker_stands_in_the_status(tmp_path: Path) -> None:
    """A wrong password, with TLS and certificates of the site; mended in its file, without a restart."""
    authority = SiteAuthority(tmp_path / "pki")
    served, mine = authority.issue("broker"), authority.issue("shoal")
    passwords, word = tmp_path / "passwords", tmp_path / "word"
    made = [program("mosquitto_passwd"), "-b", "-c", str(passwords), "me", "s3cret"]
    await asyncio.to_thread(subprocess.run, made, check=True)
    word.write_text("wr0ng\n")
    broker = Mosquitto(
        tmp_path / "mosquitto",
        f"allow_anonymous false\npassword_file {passwords}\ncafile {authority.file}\n"
        f"certfile {served.certificate}\nkeyfile {served.key}\nrequire_certificate true",
    )
    await asyncio.to_thread(broker.start)
    here = f"127.0.0.1:{broker.port}"
    url = f"mqtts://me@{here}?ca={authority.file}&certificate={mine.certificate}&key={mine.key}"
    try:
        async with (
            ControllerProcess(
                tmp_path, "--mqtt", url, "--mqtt-password-file", str(word)
            ) as controller,
            Client(controller.grpc) as client,
        ):
            ended = await succeed_at(controller.grpc, client)
            await until(lambda: says_unreachable(client), 30, "the refusal")
            said = await status_of(controller.grpc)
            assert f"broker: broker mqtts://{here} unreachable since" in said
            assert "does not let user 'me' in" in said
            assert "events wait" in said
            assert "does not let user 'me' in" in controller.log()
            word.write_text("s3cret\n")
            await until(lambda: all_published(client), 60, "an empty outbox")
            assert ended.final_event_id
            await until(lambda: state_is(client, f"connected to mqtts://{here}"), 30, "the broker")
            assert "broker:" not in await status_of(controller.grpc)
            assert not any(
                secret in controller.log() for secret in ("wr0ng", "s3cret", "PRIVATE KEY")
            )
            assert controller.process is not None
            command = Path(f"/proc/{controller.process.pid}/cmdline").read_text()
            assert "s3cret" not in command
    finally:
        broker.stop()


async def status_of(grpc: str) -> str:
    """What `shoal status` prints."""
    shoal = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shoal.cli", "status", "--controller", grpc,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await shoal.communicate()
    return " ".join(out.decode().split())
