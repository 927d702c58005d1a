"""What stands between a gateway and its callers: TLS, a proxy, readers that do not read, pages with many watches."""

import asyncio
import contextlib
import json
import socket
import ssl
from pathlib import Path

import aiohttp
import psutil
import pytest
from playwright.async_api import Browser, Page

from services.gateway.door import COOKIE
from shoal.identity import Role
from shoal.model import JobState
from shoal.spec import Job, Pipeline
from tests.integration.gateway.conftest import Site, running_site
from tests.integration.gateway.messages import envelope, messages, watch
from tests.kit.controller_credentials import credentials_of
from tests.kit.nginx import Nginx
from tests.kit.running_gateway import RunningGateway
from tests.kit.scripted_agent import connected_agent
from tests.kit.site_authority import SiteAuthority
from tests.kit.until import until

LOGS = "PipelinesService/ReadLogs"
PARTS, PART_BYTES = 64, 512 * 1024
LIST = "shoal.v1.NodesService/ListNodes"
WATCHING = """
window.opened = 0;
window.watches = [];
window.leave = number => window.watches[number].abort();
window.watch = async csrf => {
  const control = new AbortController();
  window.watches.push(control);
  const answer = await fetch('/shoal.v1.NodesService/WatchNodes', {
    method: 'POST', headers: {'content-type': 'application/connect+json', 'x-shoal-csrf': csrf},
    signal: control.signal, body: new Uint8Array([0, 0, 0, 0, 2, 123, 125]),
  });
  const reader = answer.body.getReader();
  window.opened += 1;
  while (!(await reader.read()).done);
};
window.ask = async csrf => {
  const answer = await fetch('/shoal.v1.NodesService/ListNodes', {
    method: 'POST', headers: {'content-type': 'application/json', 'x-shoal-csrf': csrf}, body: '{}',
  });
  window.asked = answer.status;
};
window.signIn = async token => (await (await fetch('/session', {
  method: 'POST', body: JSON.stringify({token}), headers: {'content-type': 'application/json'},
})).json()).csrf;
"""


def believing(authority: SiteAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


async def test_a_gateway_with_a_certificate_speaks_tls_alone(tmp_path: Path) -> None:
    authority = SiteAuthority(tmp_path / "site")
    pair = authority.issue("web")
    pair.key.chmod(0o600)
    words = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    async with running_site(tmp_path, *words) as site:
        url = f"https://{site.gateway.address}"
        connector = aiohttp.TCPConnector(ssl=believing(authority))
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.post(f"{url}/session", json={"token": site.bob}) as answer:
                assert answer.status == 200
                assert answer.cookies[COOKIE]["secure"] is True
            head = {"authorization": f"Bearer {site.bob}"}
            async with session.post(f"{url}/{LIST}", json={}, headers=head) as answer:
                assert (answer.status, await answer.json()) == (200, {})
        async with aiohttp.ClientSession() as stranger:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await stranger.get(f"{url}/health")
            with pytest.raises(aiohttp.ClientError):
                await stranger.get(f"{site.gateway.url}/health")
        assert "Traceback" not in site.gateway.log()

    other = authority.issue("other")
    other.key.chmod(0o600)
    words = ("--tls-certificate", str(pair.certificate), "--tls-key", str(other.key))
    with pytest.raises(AssertionError, match="cannot be used"):
        await RunningGateway(tmp_path / "wrong", "127.0.0.1:1", "--insecure", *words).start()


async def test_what_a_caller_says_of_its_address_is_not_believed_behind_a_proxy(
    tmp_path: Path,
) -> None:
    authority = SiteAuthority(tmp_path / "site")
    words = ("--proxy", "127.0.0.1", "--calls-per-second", "0.1")
    async with running_site(tmp_path, *words) as site:
        with Nginx(tmp_path / "nginx", authority.issue("web"), site.gateway.address) as nginx:

            async def guess(url: str, here: str, said: str) -> int:
                """Guess a token from an address of loopback, and lie about it."""
                connector = aiohttp.TCPConnector(
                    ssl=believing(authority), local_addr=(here, 0), force_close=True
                )
                head = {"authorization": "Bearer guess", "x-forwarded-for": said}
                async with (
                    aiohttp.ClientSession(connector=connector) as session,
                    session.post(f"{url}/{LIST}", json={}, headers=head) as answer,
                ):
                    return answer.status

            lies = [f"10.0.0.{number}" for number in range(4)]
            through = [await guess(nginx.url, "127.0.0.7", lie) for lie in lies]
            assert through == [401, 429, 429, 429]
            assert await guess(nginx.url, "127.0.0.8", "127.0.0.7") == 401, "that is another one"
            past = [await guess(site.gateway.url, "127.0.0.9", lie) for lie in lies]
            assert past == [401, 429, 429, 429], "past the proxy nothing is believed either"

            connector = aiohttp.TCPConnector(ssl=believing(authority))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post(f"{nginx.url}/session", json={"token": site.bob}) as answer,
            ):
                assert answer.status == 200
                assert answer.cookies[COOKIE]["secure"] is True
        assert "Traceback" not in site.gateway.log()


async def test_a_watch_comes_through_a_proxy_as_it_happens(tmp_path: Path) -> None:
    authority = SiteAuthority(tmp_path / "site")
    async with running_site(tmp_path, "--proxy", "127.0.0.1") as site:
        with Nginx(tmp_path / "nginx", authority.issue("web"), site.gateway.address) as nginx:
            connector = aiohttp.TCPConnector(ssl=believing(authority))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post(
                    f"{nginx.url}/shoal.v1.NodesService/WatchNodes",
                    data=envelope(b"{}"),
                    headers={
                        "content-type": "application/connect+json",
                        "authorization": f"Bearer {site.bob}",
                    },
                ) as answer,
            ):
                stream = messages(answer)
                async with asyncio.timeout(60):
                    assert b"snapshotEnd" in (await anext(stream))[1]
                    cam = credentials_of(site.state, Role.NODE, "cam-1")
                    async with connected_agent(site.controller, "cam-1", credentials=cam):
                        assert b"cam-1" in (await anext(stream))[1]


async def test_a_page_has_six_watches_by_http_1_and_many_behind_a_proxy(
    tmp_path: Path, chromium: Browser
) -> None:
    authority = SiteAuthority(tmp_path / "site")
    async with running_site(tmp_path / "plain") as site:
        page, csrf = await watching_page(chromium, site.gateway.url, site.bob, 6)
        # A browser opens six connections, so this call waits until a watch leaves.
        await page.evaluate("csrf => { window.ask(csrf); window.leave(0); }", csrf)
        await until(lambda: page.evaluate("window.asked == 200"), 60, "the call is answered")
    async with running_site(tmp_path / "behind", "--proxy", "127.0.0.1") as site:
        pair = authority.issue("web")
        with Nginx(tmp_path / "nginx", pair, site.gateway.address) as nginx:
            page, csrf = await watching_page(chromium, nginx.url, site.bob, 12)
            await page.evaluate("csrf => window.ask(csrf)", csrf)
            assert await page.evaluate("window.asked") == 200


async def watching_page(chromium: Browser, url: str, token: str, count: int) -> tuple[Page, str]:
    """Sign in with a page that watches so many times, and return it with the word of its session."""
    context = await chromium.new_context(ignore_https_errors=True)
    page = await context.new_page()
    await page.add_init_script(WATCHING)
    await page.goto(f"{url}/health")
    csrf = await page.evaluate("token => window.signIn(token)", token)
    for _ in range(count):
        await page.evaluate("csrf => { window.watch(csrf).catch(() => 0); }", csrf)
    await until(lambda: page.evaluate(f"window.opened == {count}"), 60, "all watch")
    return page, csrf


async def test_a_caller_that_never_reads_is_ended_and_costs_no_memory(tmp_path: Path) -> None:
    words = ("--unread-seconds", "10")
    async with (
        running_site(tmp_path, *words, caller_watches=1, lease_seconds=300.0) as site,
        site.operator() as client,
    ):
        name = (await client.submit(Pipeline("talker", (Job("a", ("true",)),)))).pipeline.name
        cam = credentials_of(site.state, Role.NODE, "cam-1")
        async with connected_agent(site.controller, "cam-1", credentials=cam) as agent:
            ref = (await agent.assignment("a")).ref
            await agent.observe(ref, JobState.RUNNING)
            for part in range(PARTS):
                await agent.log(ref, b"x" * PART_BYTES, part * PART_BYTES)
            process = site.gateway.process
            assert process is not None
            memory = psutil.Process(process.pid)
            before = memory.memory_info().rss
            with contextlib.closing(await asked_and_unread(site, name)):
                async with aiohttp.ClientSession() as session:
                    asked = {"name": name}
                    async with watch(session, site, LOGS, site.bob, asked) as refused:
                        flags, said = await anext(messages(refused))
                    assert (flags, b"resource_exhausted" in said) == (2, True)
                    held = memory.memory_info().rss - before

                    async def let_in() -> bool:
                        # The controller lets one call of the gateway last: refused until the first has ended there.
                        async with watch(session, site, LOGS, site.bob, asked) as again:
                            return (await anext(messages(again)))[0] == 0

                    await until(let_in, 100, "the call of the caller that does not read has ended")
                    grown = memory.memory_info().rss - before
                assert max(held, grown) < PARTS * PART_BYTES / 2, (held, grown)
        assert "Traceback" not in site.gateway.log()


async def asked_and_unread(site: Site, name: str) -> socket.socket:
    """Ask for a log, and read nothing."""
    host, _, port = site.gateway.address.rpartition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    body = envelope(json.dumps({"name": name}).encode())
    head = (
        f"POST /shoal.v1.{LOGS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+json\r\n"
        f"authorization: Bearer {site.bob}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    # The answer has begun, so the call counts at the controller; what follows stays unread.
    connection.settimeout(60)
    assert await asyncio.to_thread(connection.recv, 12) == b"HTTP/1.1 200"
    return connection
