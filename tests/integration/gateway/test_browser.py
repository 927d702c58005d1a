"""A real Chromium speaks Connect and gRPC-Web with a gateway, by nothing but `fetch`."""

import base64
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from shoal.identity import Role
from shoal.v1 import nodes_service_pb2 as nodes
from tests.integration.gateway.conftest import Site, running_site
from tests.kit.controller_credentials import credentials_of
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

LIBRARY = """
window.seen = [];
window.call = async (path, kind, body, headers = {}) => {
  // Each message of a stream stands behind one byte of flags and four of its length.
  const wrapped = kind.startsWith('application/connect+') || kind.startsWith('application/grpc-web');
  let data = typeof body === 'string' ? Uint8Array.from(atob(body), c => c.charCodeAt(0))
                                      : new TextEncoder().encode(JSON.stringify(body));
  if (wrapped) {
    const framed = new Uint8Array(5 + data.length);
    new DataView(framed.buffer).setUint32(1, data.length);
    framed.set(data, 5);
    data = framed;
  }
  const answer = await fetch(path, {method: 'POST', headers: {'content-type': kind, ...headers}, body: data});
  if (!wrapped) return {status: answer.status, body: await answer.json()};
  const reader = answer.body.getReader();
  let left = new Uint8Array(0);
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return {status: answer.status};
    const all = new Uint8Array(left.length + value.length);
    all.set(left); all.set(value, left.length);
    left = all;
    while (left.length >= 5) {
      const size = new DataView(left.buffer, left.byteOffset).getUint32(1);
      if (left.length < 5 + size) break;
      const part = left.slice(5, 5 + size);
      window.seen.push([left[0], btoa(String.fromCharCode(...part))]);
      left = left.slice(5 + size);
    }
  }
};
"""
JSON = "application/json"
STREAM = "application/connect+json"
PROTO_STREAM = "application/connect+proto"
GRPC_WEB = "application/grpc-web+proto"


@pytest.fixture
async def page(chromium: Browser) -> Page:
    found = await chromium.new_page()
    await found.add_init_script(LIBRARY)
    return found


async def called(
    page: Page, method: str, kind: str, body: object, headers: dict[str, str] | None = None
) -> Any:
    """Call a method, and return how that ends."""
    return await page.evaluate(
        "([path, kind, body, headers]) => window.call(path, kind, body, headers)",
        [f"/shoal.v1.{method}", kind, body, headers or {}],
    )


async def begun(page: Page, method: str, kind: str, body: object, headers: dict[str, str]) -> None:
    """Begin a call that lasts."""
    await page.evaluate(
        "([path, kind, body, headers]) => { window.call(path, kind, body, headers).catch(() => 0); }",
        [f"/shoal.v1.{method}", kind, body, headers],
    )


async def seen(page: Page) -> list[tuple[int, bytes]]:
    """The messages of streams so far, with their flags."""
    found: list[tuple[int, str]] = await page.evaluate("window.seen")
    return [(flags, base64.b64decode(data)) for flags, data in found]


async def signed_in(page: Page, site: Site, token: str) -> dict[str, str]:
    """Sign in, and return the headers of further calls."""
    await page.goto(f"{site.gateway.url}/health")
    said = await page.evaluate(
        """async token => (await fetch('/session', {method: 'POST', body: JSON.stringify({token}),
             headers: {'content-type': 'application/json'}})).json()""",
        token,
    )
    return {"x-shoal-csrf": said["csrf"]}


async def test_without_a_role_every_protocol_says_so(site: Site, page: Page) -> None:
    await page.goto(f"{site.gateway.url}/health")
    answer = await called(page, "NodesService/ListNodes", JSON, {})
    assert (answer["status"], answer["body"]["code"]) == (401, "unauthenticated")
    await called(page, "NodesService/WatchNodes", STREAM, {})
    ((flags, end),) = await seen(page)
    assert (flags, b"unauthenticated" in end) == (2, True)
    await page.reload()
    await called(page, "NodesService/WatchNodes", GRPC_WEB, "")
    ((flags, trailers),) = await seen(page)
    assert (flags, b"grpc-status: 16" in trailers) == (0x80, True)


async def test_a_viewer_reads_and_a_submitter_runs(site: Site, page: Page) -> None:
    spec = {"name": "hello", "jobs": [{"name": "greet", "run": ["true"]}]}
    headers = await signed_in(page, site, site.bob)
    answer = await called(page, "PipelinesService/ListPipelines", JSON, {}, headers)
    assert (answer["status"], answer["body"]) == (200, {})
    submit = "PipelinesService/SubmitPipeline"
    answer = await called(page, submit, JSON, {"spec": spec}, headers)
    assert (answer["status"], answer["body"]["code"]) == (403, "permission_denied")
    # Another page makes the browser send the cookie, and cannot know the word.
    answer = await called(page, "PipelinesService/ListPipelines", JSON, {})
    assert (answer["status"], "x-shoal-csrf" in answer["body"]["message"]) == (403, True)
    headers = await signed_in(page, site, site.ann)
    answer = await called(page, submit, JSON, {"spec": spec}, headers)
    assert answer["body"]["pipeline"]["creator"] == "gateway/web for ann"


@pytest.mark.parametrize("kind", [PROTO_STREAM, GRPC_WEB])
async def test_a_page_watches_a_node_that_joins(site: Site, page: Page, kind: str) -> None:
    headers = await signed_in(page, site, site.bob)
    await begun(page, "NodesService/WatchNodes", kind, "", headers)

    async def news() -> list[nodes.WatchNodesResponse]:
        return [nodes.WatchNodesResponse.FromString(data) for _, data in await seen(page)]

    async def of(what: str) -> bool:
        return any(one.WhichOneof("change") == what for one in await news())

    await until(lambda: of("snapshot_end"), 20, "the end of the snapshot")
    cam = credentials_of(site.state, Role.NODE, "cam-1")
    async with connected_agent(site.controller, "cam-1", credentials=cam):
        await until(lambda: of("node"), 20, "the node")
    assert {one.node.name for one in await news()} == {"", "cam-1"}


async def test_a_page_that_leaves_ends_its_call_at_the_controller(
    tmp_path: Path, page: Page
) -> None:
    async with running_site(tmp_path, caller_watches=1) as site:
        headers = await signed_in(page, site, site.bob)
        await begun(page, "NodesService/WatchNodes", STREAM, {}, headers)

        async def shown() -> bool:
            return any(b"snapshotEnd" in data for _, data in await seen(page))

        await until(shown, 20, "the page watches")
        await page.goto("about:blank")
        await signed_in(page, site, site.bob)

        async def watches() -> bool:
            # The controller lets one call of the gateway last: refused until the first has ended there.
            headers = await signed_in(page, site, site.bob)
            await begun(page, "NodesService/WatchNodes", STREAM, {}, headers)
            await until(lambda: seen(page), 20, "an answer")
            return await shown()

        await until(watches, 40, "the call of the page that left has ended")
