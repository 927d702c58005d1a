"""Requests for an overview."""

import contextlib
from collections.abc import AsyncGenerator

from shoal.calls.calls import ControllerCalls
from shoal.connection import decoded
from shoal.overview import OverviewNews, OverviewWish
from shoal.v1 import overview_service_pb2 as v1
from shoal.wire.overview import decode_overview_news, encode_overview_wish


class OverviewCalls(ControllerCalls):
    """What can be asked for programs that show a cluster."""

    async def watch_overview(
        self, wish: OverviewWish, *, resume_token: str = ""
    ) -> AsyncGenerator[OverviewNews, None]:
        """Tell of pipelines, nodes, members, events and counts as they are, and then as they change.

        After a cut it goes on from the last token. Close it with `contextlib.aclosing` when you stop early.

        Args:
            wish: what is to be shown.
            resume_token: of the last news of another watch of the same.

        Raises:
            ShoalError: it was refused, or the controller stayed away for too long.
        """

        def request() -> v1.WatchOverviewRequest:
            return encode_overview_wish(wish, self.namespace, resume_token)

        stream = self._held.connection.stream(
            self._held.overview.WatchOverview, request, endless=True
        )
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                news = decoded(decode_overview_news, response)
                resume_token = news.resume_token
                yield news
