"""The contract by HTTP, in front of a real controller: what is let in, what is refused, and what is limited."""

import asyncio
import base64
import json
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shoal.credentials import write_credentials
from shoal.identity import Role
from shoal.v1 import nodes_service_pb2
from tests.integration.gateway.conftest import Site, running_site
from tests.integration.gateway.messages import envelope, messages, watch
from tests.kit.controller_credentials import credentials_of
from tests.kit.running_controller import running_controller
from tests.kit.running_gateway import RunningGateway
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

SPEC = {"name": "hello", "jobs": [{"name": "greet", "run": ["true"]}]}


def reason_of(body: Any) -> str:
    """The reason in the details of an error."""
    detail = body["details"][0]
    data = base64.b64decode(detail["value"] + "===")
    return data[2 : 2 + data[1]].decode()


async def test_a_submitter_runs_and_a_viewer_reads(site: Site) -> None:
    asked = {"requestId": "r-1", "spec": SPEC}
    status, told = await site.gateway.ask("PipelinesService/SubmitPipeline", site.ann, asked)
    assert (status, told["pipeline"]["creator"]) == (200, "gateway/web for ann")
    status, again = await site.gateway.ask("PipelinesService/SubmitPipeline", site.ann, asked)
    assert (again["repeatedRequest"], again["pipeline"]["name"]) == (True, told["pipeline"]["name"])
    name = {"name": told["pipeline"]["name"]}
    status, seen = await site.gateway.ask("PipelinesService/GetPipeline", site.bob, name)
    assert (status, seen["pipeline"]["name"]) == (200, name["name"])
    for method, body in (("CancelPipeline", name), ("SubmitPipeline", asked)):
        status, told = await site.gateway.ask(f"PipelinesService/{method}", site.bob, body)
        assert (status, told["code"], reason_of(told)) == (403, "permission_denied", "NOT_ALLOWED")


async def test_nobody_is_let_in_without_a_role(site: Site) -> None:
    for token, reason in (("", "SIGN_IN"), ("shoalgw1.none", "TOKEN_UNKNOWN")):
        status, told = await site.gateway.ask("NodesService/ListNodes", token)
        assert (status, told["code"], reason_of(told)) == (401, "unauthenticated", reason)
    site.gateway.command("forbid", "bob")
    status, told = await site.gateway.ask("NodesService/ListNodes", site.bob)
    assert (status, reason_of(told)) == (401, "TOKEN_UNKNOWN")


async def test_an_operators_calls_are_refused_and_those_of_identities_are_not_there(
    site: Site,
) -> None:
    status, told = await site.gateway.ask("NodesService/ForgetNode", site.ann, {"name": "n"})
    assert (status, reason_of(told)) == (403, "NOT_ALLOWED")
    for method in ("IdentityService/CreateToken", "KeysService/ListKeys", "NoService/None"):
        assert (await site.gateway.ask(method, site.ann))[0] == 404


async def test_a_controllers_refusal_comes_with_its_reason(site: Site) -> None:
    status, told = await site.gateway.ask("PipelinesService/GetPipeline", site.bob, {"name": "no"})
    assert (status, told["code"], reason_of(told)) == (404, "not_found", "UNKNOWN_PIPELINE")
    status, told = await site.gateway.ask("PipelinesService/GetPipeline", site.bob, {"name": 7})
    assert (status, told["code"]) == (400, "invalid_argument")


async def test_a_watch_shows_a_node_that_joins_and_its_call_ends_with_the_browser(
    tmp_path: Path,
) -> None:
    async with running_site(tmp_path, caller_watches=1) as site, aiohttp.ClientSession() as session:
        # The gateway may have one call open that lasts: a second one is let in once the first has ended upstream.
        async with watch(session, site, "NodesService/WatchNodes", site.bob, {}) as answer:
            stream = messages(answer)
            assert "snapshotEnd" in json.loads((await anext(stream))[1])
            cam = credentials_of(site.state, Role.NODE, "cam-1")
            async with connected_agent(site.controller, "cam-1", credentials=cam):
                assert json.loads((await anext(stream))[1])["node"]["name"] == "cam-1"
            async with watch(session, site, "NodesService/WatchNodes", site.ann, {}) as second:
                flags, end = [one async for one in messages(second)][-1]
                assert (flags, json.loads(end)["error"]["code"]) == (2, "resource_exhausted")
            answer.close()

        async def let_in() -> bool:
            async with watch(session, site, "NodesService/WatchNodes", site.ann, {}) as again:
                return (await anext(messages(again)))[0] == 0

        await until(let_in, 20, "the call of the browser that left has ended")


async def test_grpc_web_carries_the_same_messages_and_errors(site: Site) -> None:
    async with aiohttp.ClientSession() as session:

        async def call(token: str, method: str, request: bytes) -> list[tuple[int, bytes]]:
            async with session.post(
                f"{site.gateway.url}/shoal.v1.NodesService/{method}",
                data=envelope(request),
                headers={
                    "content-type": "application/grpc-web+proto",
                    "authorization": f"Bearer {token}",
                },
            ) as answer:
                assert answer.status == 200
                return [one async for one in messages(answer)]

        (flags, data), (last, trailers) = await call(site.bob, "ListMembers", b"")
        found = nodes_service_pb2.ListMembersResponse.FromString(data)
        assert (flags, [one.name for one in found.members]) == (0, ["controller"])
        assert (last, b"grpc-status: 0" in trailers) == (0x80, True)
        ((last, trailers),) = await call("", "ListMembers", b"")
        assert (last, b"grpc-status: 16" in trailers) == (0x80, True)


async def test_too_much_is_refused_and_the_gateway_goes_on(tmp_path: Path) -> None:
    words = ("--request-bytes", "2048", "--calls-per-second", "5", "--watches", "1")
    async with running_site(tmp_path, *words) as site, aiohttp.ClientSession() as session:
        status, told = await site.gateway.ask(
            "PipelinesService/GetPipeline", site.ann, {"name": "x" * 4096}
        )
        assert (status, told["code"]) == (429, "resource_exhausted")
        async with watch(session, site, "NodesService/WatchNodes", site.ann, {}) as first:
            await anext(messages(first))
            async with watch(session, site, "NodesService/WatchMembers", site.ann, {}) as second:
                ((flags, end),) = [one async for one in messages(second)]
            assert (flags, json.loads(end)["error"]["code"]) == (2, "resource_exhausted")
            assert "--watches" in json.loads(end)["error"]["message"]
        asked = [site.gateway.ask("NodesService/ListNodes", site.bob) for _ in range(40)]
        answers = await asyncio.gather(*asked)
        refused = [told for status, told in answers if status == 429]
        assert refused
        assert reason_of(refused[0]) == "QUOTA"
        assert "--calls-per-second" in refused[0]["message"]
        types = [one["type"] for one in refused[0]["details"]]
        assert types == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]

        async def again() -> bool:
            return (await site.gateway.ask("NodesService/ListNodes", site.bob))[0] == 200

        await until(again, 20, "the user may ask again")


async def test_whatever_a_stranger_sends_the_gateway_answers_the_next_one(site: Site) -> None:
    host, _, port = site.gateway.address.rpartition(":")
    head = (
        "POST /shoal.v1.NodesService/ListNodes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {site.bob}\r\n"
    )
    for sent in (
        b"\x16\x03\x01\x00\xff",
        b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 200_000,
        f"{head}content-length: 5\r\n\r\n[[[[[".encode(),
        f"{head}content-length: 2\r\ncontent-encoding: gzip\r\n\r\n{{}}".encode(),
        f"{head}content-length: 99\r\n\r\n{{".encode(),
        head.replace("application/json", "application/connect+json").encode()
        + b"content-length: 5\r\n\r\n\x00\xff\xff\xff\xff",
        head.replace("application/json", "text/plain").encode() + b"content-length: 0\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            await asyncio.to_thread(connection.recv, 65536)
        status, _ = await site.gateway.ask("NodesService/ListNodes", site.bob)
        assert status == 200, sent[:80]
    assert "Traceback" not in site.gateway.log()


async def test_pages_of_others_are_let_in_only_where_they_are_named(tmp_path: Path) -> None:
    async def allowed(site: Site, origin: str) -> str | None:
        asked = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        path = f"{site.gateway.url}/shoal.v1.NodesService/ListNodes"
        async with (
            aiohttp.ClientSession() as session,
            session.options(path, headers=asked) as answer,
        ):
            return answer.headers.get("access-control-allow-origin")

    async with running_site(tmp_path / "closed") as site:
        assert await allowed(site, "https://app.example") is None
    async with running_site(tmp_path / "open", "--origin", "https://app.example") as site:
        assert await allowed(site, "https://app.example") == "https://app.example"
        assert await allowed(site, "https://evil.example") is None


async def test_a_gateway_stops_in_time_though_pages_watch(site: Site) -> None:
    async with (
        aiohttp.ClientSession() as session,
        watch(session, site, "NodesService/WatchNodes", site.bob, {}) as answer,
    ):
        stream = messages(answer)
        await anext(stream)
        code = await asyncio.to_thread(site.gateway.end, signal.SIGTERM, 40)
        assert code == 0, site.gateway.log()
        left = [one async for one in stream]
        assert all(flags == 2 for flags, _ in left)
    assert "Traceback" not in site.gateway.log()


async def test_an_identity_that_is_no_gateways_is_refused_at_the_start(tmp_path: Path) -> None:
    state = tmp_path / "controller"
    async with running_controller(state, insecure=False) as addresses:
        write_credentials(tmp_path / "ann", credentials_of(state, Role.OPERATOR, "ann"))
        words = ("--identity", str(tmp_path / "ann"))
        gateway = RunningGateway(tmp_path / "gateway", addresses.grpc, *words)
        with pytest.raises(AssertionError, match="shoal token create --role gateway"):
            await gateway.start()


async def test_a_text_is_looked_at_and_run_by_a_submitter_alone(site: Site) -> None:
    text = {"text": "name: hello\njobs:\n  greet: {run: 'true', timeout: soon}\n"}
    asked = {"source": {"text": text}}
    status, told = await site.gateway.ask("SpecsService/ValidateSpec", site.ann, asked)
    (problem,) = told["problems"]
    assert (status, problem["field"], problem["line"]) == (200, "jobs.greet.timeout", 3)
    status, told = await site.gateway.ask("SpecsService/SubmitSource", site.ann, asked)
    assert (status, reason_of(told)) == (400, "INVALID_SPEC")
    text["text"] = text["text"].replace("soon", "5s")
    status, told = await site.gateway.ask("SpecsService/ValidateSpec", site.ann, asked)
    assert told["spec"]["jobs"][0]["timeoutSeconds"] == 5
    status, told = await site.gateway.ask("SpecsService/SubmitSource", site.ann, asked)
    assert (status, told["pipeline"]["creator"]) == (200, "gateway/web for ann")
    for method in ("ValidateSpec", "SubmitSource"):
        status, told = await site.gateway.ask(f"SpecsService/{method}", site.bob, asked)
        assert (status, told["code"]) == (403, "permission_denied")


async def test_a_stored_pipeline_is_kept_changed_and_run_by_name(site: Site) -> None:
    service = "StoredPipelinesService"
    text = "name: hello\nparameters: {who: {default: ann}}\njobs:\n  greet: {run: 'echo ${{ parameters.who }}'}\n"
    kept = {"name": "hello", "source": {"text": {"text": text}}}
    status, told = await site.gateway.ask(f"{service}/CreateStoredPipeline", site.ann, kept)
    assert (status, told["stored"]["version"]) == (200, 1)
    assert told["stored"]["creator"] == "gateway/web for ann"
    assert told["stored"]["parameters"][0]["defaultValue"] == "ann"
    newer = {"name": "hello", "source": {"text": {"text": f"{text}# newer\n"}}}
    for version, wanted in ((1, 200), (7, 409)):
        asked = {**newer, "expectedVersion": version}
        status, told = await site.gateway.ask(f"{service}/UpdateStoredPipeline", site.ann, asked)
        assert status == wanted, told
        newer["description"] = "another one"
    assert reason_of(told) == "VERSION_CHANGED"
    asked = {"name": "hello", "values": {"who": "bob"}, "requestId": "r-1"}
    status, ran = await site.gateway.ask(f"{service}/SubmitStoredPipeline", site.ann, asked)
    assert (status, ran["pipeline"]["stored"]) == (200, "stored/hello/versions/2")
    assert ran["pipeline"]["spec"]["jobs"][0]["run"] == ["echo", "bob"]
    status, seen = await site.gateway.ask(f"{service}/ListStoredPipelines", site.bob)
    assert [one["name"] for one in seen["stored"]] == ["hello"]
    status, told = await site.gateway.ask(f"{service}/SubmitStoredPipeline", site.bob, asked)
    assert status == 403
