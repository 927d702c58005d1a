"""`GET /members` and `GET /info`, in the JSON that the original cluster program served.

`/members` lists the alive: `{"Active": [{"Name", "IP", "Port"}]}`. With `?all=true` it adds
`Suspect`, `Dead` and `Left`, each with `Incarnation` and `SinceSeconds`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Self, cast

from aiohttp import web

from services.membership.member import Member
from services.membership.message import SwimState
from shoal.credentials import Credentials
from shoal.tls import server_context

if TYPE_CHECKING:
    from services.membership.shell import GossipShell

_STATES: Final = {
    "Active": SwimState.ALIVE,
    "Suspect": SwimState.SUSPECT,
    "Dead": SwimState.DEAD,
    "Left": SwimState.LEFT,
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_YES: Final = {"", "1", "true", "yes"}


class MembersPage:
    """Serves what one gossip believes.

    Args:
        gossip: The member that is asked.
        clock: The clock of the gossip.
        host: Where to listen.
        port: Port, 0 for any free one.
        identity: Returns what it proves over HTTPS, where its clients have to prove an identity of
            the same cluster too; None for plain HTTP.
        is_revoked: Says whether a certificate with a serial number is believed no more.
    """

    def __init__(
        self,
        gossip: GossipShell,
        *,
        clock: Callable[[], float],
        host: str = "127.0.0.1",
        port: int = 0,
        identity: Callable[[], Credentials] | None = None,
        is_revoked: Callable[[int], bool] | None = None,
    ) -> None:
        self._gossip = gossip
        self._clock = clock
        self._host = host
        self._port = port
        self._identity = identity
        self._is_revoked = is_revoked
        application = web.Application(middlewares=[self._check])
        application.router.add_get("/members", self._members)
        application.router.add_get("/info", self._info)
        self._runner = web.AppRunner(application, access_log=None)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        tls = None if self._identity is None else server_context(self._identity, prove=True)
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=tls).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(5):
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        """Where it really listens."""
        return int(self._runner.addresses[0][1])

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a certificate that was revoked, at each request: a connection outlasts its handshake."""
        if self._is_revoked is not None and self._is_revoked(_serial(request)):
            return web.Response(status=403, text="the certificate of this caller was revoked\n")
        return await handler(request)

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response(_place(self._gossip.local))

    async def _members(self, request: web.Request) -> web.Response:
        asked = request.query.get("all")
        if asked is None or asked.lower() not in _YES:
            # The original knew no suspicion: a member that is not given up yet is active.
            active = [_place(member) for member in self._gossip.members()]
            return web.json_response({"Active": active})
        now = self._clock()
        members = self._gossip.members(all_states=True)
        return web.json_response(
            {
                title: [
                    {
                        **_place(member),
                        "Incarnation": member.incarnation,
                        "SinceSeconds": round(now - member.state_since, 3),
                    }
                    for member in members
                    if member.state is state
                ]
                for title, state in _STATES.items()
            }
        )


def _serial(request: web.Request) -> int:
    """Serial number of the certificate that a caller has proved."""
    shown = cast("dict[str, object]", request.get_extra_info("peercert") or {})
    return int(str(shown.get("serialNumber", "0")), 16)


def _place(member: Member) -> dict[str, str | int]:
    return {"Name": member.name, "IP": member.address, "Port": member.port}
