"""The contract by the library that pages use, `@connectrpc/connect-web`, in a real Chromium.

No code is generated: the library reads the descriptors, as the gateway does. Its modules are given to the page as
they come from npm.
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2
from playwright.async_api import Browser, Page, Route

from shoal.client import Client
from shoal.identity import Role
from shoal.spec import Job, Pipeline
from shoal.v1 import nodes_service_pb2, pipelines_service_pb2
from tests.integration.gateway.conftest import Site
from tests.integration.gateway.test_restart import before_a_controller, restarted
from tests.kit.controller_credentials import credentials_of
from tests.kit.programs import unavailable
from tests.kit.scripted_agent import connected_agent
from tests.kit.tree import ROOT
from tests.kit.until import until

MODULES = ROOT / ".venv-web" / "node_modules"
PACKAGES = ("@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web")
KINDS = ("connect-json", "connect-binary", "grpc-web")
SCRIPT = """
import {createFileRegistry, fromBinary, toJson} from "@bufbuild/protobuf";
import {FileDescriptorSetSchema} from "@bufbuild/protobuf/wkt";
import {Code, ConnectError, createClient} from "@connectrpc/connect";
import {createConnectTransport, createGrpcWebTransport} from "@connectrpc/connect-web";

const bytes = Uint8Array.from(atob(window.descriptors), c => c.charCodeAt(0));
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
const baseUrl = location.origin;

function client(service, kind, token) {
  const bearing = next => request => {
    if (token) request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  const options = {baseUrl, interceptors: [bearing], useBinaryFormat: kind !== "connect-json"};
  const transport = kind === "grpc-web" ? createGrpcWebTransport(options) : createConnectTransport(options);
  return createClient(registry.getService(service), transport);
}

function described(error) {
  const refused = ConnectError.from(error);
  const infos = refused.findDetails(registry).filter(one => one.$typeName === "google.rpc.ErrorInfo");
  return {code: Code[refused.code], message: refused.rawMessage, reason: infos.map(one => one.reason)[0] ?? ""};
}

window.call = async (service, method, kind, token, request) => {
  try {
    const answer = await client(service, kind, token)[method](request);
    const schema = registry.getMessage(answer.$typeName);
    return {answer: toJson(schema, answer, {registry})};
  } catch (error) {
    return {error: described(error)};
  }
};

window.seen = [];
window.watch = async (service, method, kind, token, request) => {
  try {
    for await (const one of client(service, kind, token)[method](request)) {
      window.seen.push(toJson(registry.getMessage(one.$typeName), one, {registry}));
    }
    window.seen.push({end: true});
  } catch (error) {
    window.seen.push({error: described(error)});
  }
};
window.ready = true;
"""


def descriptors() -> bytes:
    """The contract and all that it needs, those first that others need."""
    found: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        found.setdefault(file.name, file)

    for module in (error_details_pb2, nodes_service_pb2, pipelines_service_pb2):
        add(module.DESCRIPTOR)
    files: list[FileDescriptorProto] = []
    for file in found.values():
        said = FileDescriptorProto()
        file.CopyToProto(said)
        for message in said.message_type:
            name_fields(message)
        files.append(said)
    return FileDescriptorSet(file=files).SerializeToString()


def name_fields(message: DescriptorProto) -> None:
    """Say what its fields are called in JSON, which protoc says and Python leaves out."""
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = first + "".join(map(str.capitalize, others))
    for nested in message.nested_type:
        name_fields(nested)


def import_map() -> dict[str, str]:
    """Where a page finds what these packages export."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        exported = json.loads((MODULES / package / "package.json").read_text())["exports"]
        for name, places in exported.items():
            place = places
            while not isinstance(place, str):  # for several kinds of program
                place = place.get("import") or place["default"]
            path = place.removeprefix("./")
            found[package + name.removeprefix(".")] = f"/modules/{package}/{path}"
    return found


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    if not MODULES.is_dir():
        unavailable("there is no .venv-web; `make lane-gateway` makes it, with npm")

    async def document(route: Route) -> None:
        imports = json.dumps({"imports": import_map()})
        said = base64.b64encode(descriptors()).decode()
        await route.fulfill(
            content_type="text/html",
            body=f'<script type="importmap">{imports}</script><script>window.descriptors = "{said}";</script>'
            f'<script type="module">{SCRIPT}</script>',
        )

    async def module(route: Route) -> None:
        path = route.request.url.partition("/modules/")[2]
        await route.fulfill(content_type="text/javascript", body=(MODULES / path).read_text())

    found = await chromium.new_page()
    await found.route("**/page.html", document)
    await found.route("**/modules/**", module)
    yield found
    await found.close()


async def opened(page: Page, url: str) -> None:
    await page.goto(f"{url}/page.html")
    await until(lambda: page.evaluate("window.ready === true"), 60, "the library is there")


async def called(page: Page, method: str, kind: str, token: str, request: object) -> Any:
    service, _, name = method.partition(".")
    return await page.evaluate(
        "([service, name, kind, token, request]) => window.call(service, name, kind, token, request)",
        [f"shoal.v1.{service}", name, kind, token, request],
    )


async def watch(page: Page, method: str, kind: str, token: str, request: object) -> None:
    service, _, name = method.partition(".")
    await page.evaluate(
        "([service, name, kind, token, request]) => { window.watch(service, name, kind, token, request); }",
        [f"shoal.v1.{service}", name, kind, token, request],
    )


async def seen(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.evaluate("window.seen")
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_calls_and_watches_with_a_role_and_is_told_without(
    site: Site, page: Page, kind: str
) -> None:
    await opened(page, site.gateway.url)
    said = await called(page, "NodesService.listMembers", kind, site.bob, {"all": True})
    assert [one["name"] for one in said["answer"]["members"]] == ["controller"]
    said = await called(page, "NodesService.listMembers", kind, "", {})
    assert (said["error"]["code"], said["error"]["reason"]) == ("Unauthenticated", "SIGN_IN")
    spec = {"name": "hello", "jobs": [{"name": "greet", "run": ["true"]}]}
    said = await called(page, "PipelinesService.submitPipeline", kind, site.bob, {"spec": spec})
    assert (said["error"]["code"], said["error"]["reason"]) == ("PermissionDenied", "NOT_ALLOWED")
    said = await called(page, "PipelinesService.submitPipeline", kind, site.ann, {"spec": spec})
    assert said["answer"]["pipeline"]["creator"] == "gateway/web for ann"
    said = await called(page, "PipelinesService.getPipeline", kind, site.bob, {"name": "none"})
    assert (said["error"]["code"], said["error"]["reason"]) == ("NotFound", "UNKNOWN_PIPELINE")

    await watch(page, "NodesService.watchNodes", kind, site.bob, {})

    async def shown(what: str) -> bool:
        return any(what in one for one in await seen(page))

    await until(lambda: shown("snapshotEnd"), 20, "the end of the snapshot")
    cam = credentials_of(site.state, Role.NODE, "cam-1")
    async with connected_agent(site.controller, "cam-1", credentials=cam):
        await until(lambda: shown("node"), 20, "the node")
    site.gateway.command("forbid", "bob")
    await until(lambda: shown("error"), 20, "the end of the watch")
    last = (await seen(page))[-1]["error"]
    assert (last["code"], last["reason"]) == ("Unauthenticated", "SIGNED_OUT")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_watches_through_a_restart_of_the_controller(
    tmp_path: Path, page: Page, kind: str
) -> None:
    async with (
        before_a_controller(tmp_path) as (controller, gateway, token),
        Client(controller.grpc) as client,
    ):
        await opened(page, gateway.url)
        await watch(page, "PipelinesService.watchPipelines", kind, token, {})

        async def names() -> set[str]:
            return {one["pipeline"]["name"] for one in await seen(page) if "pipeline" in one}

        async def has(name: str) -> bool:
            return name in await names()

        first = (await client.submit(Pipeline("one", (Job("a", ("true",)),)))).pipeline.name
        await until(lambda: has(first), 20, "the first pipeline")
        await restarted(controller)
        second = (await client.submit(Pipeline("two", (Job("a", ("true",)),)))).pipeline.name
        await until(lambda: has(second), 40, "the one after the restart")
        assert not any("error" in one or "end" in one for one in await seen(page))
