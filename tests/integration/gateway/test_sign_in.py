"""A browser signs in, and what a cookie may do."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from shoal.identity import Role
from tests.integration.gateway.conftest import Site, running_site
from tests.integration.gateway.messages import envelope, messages, watch
from tests.kit.controller_credentials import credentials_of
from tests.kit.scripted_agent import connected_agent


async def call(session: aiohttp.ClientSession, site: Site, method: str, **headers: str) -> int:
    path = f"{site.gateway.url}/shoal.v1.{method}"
    async with session.post(path, json={}, headers=headers) as answer:
        return answer.status


async def sign_in(session: aiohttp.ClientSession, site: Site, token: str) -> tuple[int, Any]:
    async with session.post(f"{site.gateway.url}/session", json={"token": token}) as answer:
        return answer.status, await answer.json()


async def test_a_session_begins_with_a_token_and_ends_with_the_sign_out(site: Site) -> None:
    jar = aiohttp.CookieJar(unsafe=True)  # which keeps cookies of addresses, too
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        assert await call(session, site, "NodesService/ListNodes") == 401
        status, told = await sign_in(session, site, site.bob)
        assert (status, told["user"], told["role"]) == (200, "bob", "viewer")
        (cookie,) = jar
        assert (cookie["httponly"], cookie["samesite"]) == (True, "strict")
        assert await call(session, site, "NodesService/ListNodes") == 403
        word = {"x-shoal-csrf": told["csrf"]}
        assert await call(session, site, "NodesService/ListNodes", **word) == 200
        assert await call(session, site, "PipelinesService/CancelPipeline", **word) == 403
        async with session.get(f"{site.gateway.url}/session") as answer:
            assert (await answer.json())["csrf"] == told["csrf"]

        site.gateway.end(signal.SIGTERM)
        await site.gateway.start()
        assert await call(session, site, "NodesService/ListNodes", **word) == 200
        async with session.delete(f"{site.gateway.url}/session") as answer:
            assert answer.status == 403
        stolen = cookie.value
        async with session.delete(f"{site.gateway.url}/session", headers=word) as answer:
            assert answer.status == 200
        assert list(jar) == []
        back = {**word, "cookie": f"shoal-session={stolen}"}
        assert await call(session, site, "NodesService/ListNodes", **back) == 401


async def test_a_sign_in_that_is_none_is_refused_with_the_remedy(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        status, told = await sign_in(session, site, "shoalgw1.none")
        assert (status, told["reason"]) == (401, "TOKEN_UNKNOWN")
        form = {"content-type": "application/x-www-form-urlencoded"}
        for body, headers in (
            (b"token=x", form),
            (b"{", {"content-type": "application/json"}),
            (b'{"token": 5}', {"content-type": "application/json"}),
            (b"[" * 3000, {"content-type": "application/json"}),
            (b'{"token": "' + b"x" * 5000 + b'"}', {"content-type": "application/json"}),
        ):
            async with session.post(
                f"{site.gateway.url}/session", data=body, headers=headers
            ) as answer:
                assert answer.status == 400, body[:20]
                assert "as JSON" in (await answer.json())["message"]
        assert await call(session, site, "NodesService/ListNodes") == 401


async def test_what_is_watched_ends_with_the_session_and_with_the_user(site: Site) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as page, aiohttp.ClientSession() as program:
        _, told = await sign_in(page, site, site.bob)
        word = {"x-shoal-csrf": told["csrf"]}
        path = f"{site.gateway.url}/shoal.v1.NodesService/WatchNodes"
        kind = {"content-type": "application/connect+json", **word}
        async with (
            page.post(path, data=envelope(b"{}"), headers=kind) as by_session,
            watch(program, site, "NodesService/WatchNodes", site.bob, {}) as by_token,
            watch(program, site, "NodesService/WatchNodes", site.ann, {}) as other,
        ):
            streams = [messages(answer) for answer in (by_session, by_token, other)]
            for stream in streams:
                assert (await anext(stream))[0] == 0
            async with page.delete(f"{site.gateway.url}/session", headers=word) as answer:
                assert answer.status == 200
            await ended(streams[0], "sign in again")
            site.gateway.command("forbid", "bob")
            await ended(streams[1], "shoal gateway allow")
            cam = credentials_of(site.state, Role.NODE, "cam-1")
            async with connected_agent(site.controller, "cam-1", credentials=cam):
                flags, data = await asyncio.wait_for(anext(streams[2]), 20)
            assert (flags, b"cam-1" in data) == (0, True)
        updates = {"userName": "u", "taskName": "t"}
        head = {"authorization": f"Bearer {site.ann}"}
        async with program.get(
            f"{site.gateway.url}/updates", params=updates, headers=head
        ) as answer:
            await answer.content.readline()
            site.gateway.command("forbid", "ann")
            with contextlib.suppress(
                aiohttp.ClientPayloadError
            ):  # cut, so that the page asks again
                await asyncio.wait_for(answer.content.read(), 20)
        assert (await site.gateway.ask("NodesService/ListNodes", site.ann))[0] == 401
    assert "Traceback" not in site.gateway.log()


async def ended(stream: AsyncIterator[tuple[int, bytes]], why: str) -> None:
    """Read a stream to its end, which says why."""
    async with asyncio.timeout(20):
        last = [one async for one in stream][-1]
    assert last[0] == 2
    error = json.loads(last[1])["error"]
    assert (error["code"], why in error["message"]) == ("unauthenticated", True)


async def test_a_page_on_a_wall_reads_without_a_sign_in(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, "--anonymous", "viewer") as site,
        aiohttp.ClientSession() as session,
    ):
        assert await call(session, site, "NodesService/ListNodes") == 200
        assert await call(session, site, "PipelinesService/CancelPipeline") == 403
