"""Spans leave the store for a collector, in the background of all else.

Rule. Spans are rows of the transactions that record what they tell of, and are let go once a collector has taken them.
So a kill -9 between loses none; one that comes between the two lets them be sent again, under the same ids.

A collector that is away is asked again, less and less often, and the newest `KEPT_ROWS` rows wait for it; the oldest
beyond are lost and counted. One that says that it will never take some loses those. Jobs wait for none of that.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from control.core.errors import StoreFailedError
from control.core.rows import SpansRow
from control.store.store import Store
from services.runtime.log import fields
from services.traces.span import Span, from_text
from services.traces.taker import CollectorAwayError, CollectorRefusedError, SpanTaker
from shoal.backoff import Backoff

LOG = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 256
KEPT_ROWS: Final = 10_000
_GATHER_SECONDS: Final = 0.2
"""How long spans are gathered before they are sent, so that many jobs share a request."""
_AGAIN: Final = Backoff(0.5, 30.0, jitter=0.5)


class SpanExport:
    """Sends spans for as long as `run` runs.

    Args:
        store: has the spans.
        waits: is set when there are more; cleared here.
        taker: takes them.
        chance: a number from [0, 1) for each backoff.
        kept_rows: most rows that wait.

    Attributes:
        sent: spans that were taken since the start.
        lost: spans that were refused, had no room, or could not be read.
        away: why the collector takes none for now; empty while it does.
    """

    def __init__(
        self,
        store: Store,
        waits: asyncio.Event,
        taker: SpanTaker,
        *,
        chance: Callable[[], float],
        kept_rows: int = KEPT_ROWS,
    ) -> None:
        self._store = store
        self._waits = waits
        self._taker = taker
        self._chance = chance
        self._kept_rows = kept_rows
        self.sent = 0
        self.lost = 0
        self.away = ""

    async def run(self) -> None:
        """Send what waits until cancelled."""
        failures = 0
        while True:
            self._waits.clear()
            try:
                while rows := await self._store.spans(ROWS_AT_ONCE):
                    await self._send(rows)
                    failures, self.away = 0, ""
            except (CollectorAwayError, StoreFailedError) as error:
                failures += 1
                if not self.away:
                    LOG.warning("spans wait for their collector", extra=fields(why=str(error)))
                self.away = str(error)
                await asyncio.sleep(_AGAIN.delay_seconds(failures, self._chance()))
            else:
                # No deadline: nothing may happen for days.
                await self._waits.wait()
                await asyncio.sleep(_GATHER_SECONDS)

    async def _send(self, rows: Sequence[SpansRow]) -> None:
        spans = [span for row in rows for span in self._spans_of(row)]
        try:
            refused = await self._taker.send(spans) if spans else 0
        except CollectorRefusedError as error:
            LOG.warning("spans were refused", extra=fields(spans=len(spans), why=str(error)))
            refused = len(spans)
        except CollectorAwayError:
            self.lost += await self._store.drop_spans(0, self._kept_rows)
            raise
        self.lost += refused
        self.sent += len(spans) - refused
        await self._store.drop_spans(rows[-1].sequence, self._kept_rows)

    def _spans_of(self, row: SpansRow) -> Sequence[Span]:
        try:
            return from_text(row.data)
        except ValueError as error:
            self.lost += 1
            LOG.warning("a row of spans cannot be read", extra=fields(why=str(error)))
            return ()
