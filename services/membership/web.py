"""`GET /members` and `GET /info`, in the JSON that the original cluster program served.

`/members` lists the alive: `{"Active": [{"Name", "IP", "Port"}]}`. With `?all=true` it adds
`Suspect`, `Dead` and `Left`, each with `Incarnation` and `SinceSeconds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web

from services.membership.member import Member
from services.membership.message import SwimState
from services.runtime.web_page import WebPage
from shoal.credentials import Credentials

if TYPE_CHECKING:
    from services.membership.shell import GossipShell

_STATES: Final = {
    "Active": SwimState.ALIVE,
    "Suspect": SwimState.SUSPECT,
    "Dead": SwimState.DEAD,
    "Left": SwimState.LEFT,
}
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
        self._page = WebPage(
            {"/members": self._members, "/info": self._info},
            host=host,
            port=port,
            identity=identity,
            is_revoked=is_revoked,
        )

    async def __aenter__(self) -> Self:
        await self._page.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._page.__aexit__()

    @property
    def port(self) -> int:
        """Where it really listens."""
        return self._page.port

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


def _place(member: Member) -> dict[str, str | int]:
    return {"Name": member.name, "IP": member.address, "Port": member.port}
