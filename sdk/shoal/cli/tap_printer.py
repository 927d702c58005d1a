"""What a tap has seen, line by line: records, or once a second how fast they pass."""

from collections.abc import Callable
from dataclasses import dataclass, field

import click

from shoal.cli.document import print_document
from shoal.cli.figures import bytes_text, count_text
from shoal.record_text import read_record
from shoal.view import TapConsumer, TapNews, TapRecord

_RATE_SECONDS = 1.0


@dataclass(slots=True)
class RecordPrinter:
    """Prints records on stdout, and everything else on stderr.

    Args:
        codec: what records are taken for, see `shoal.record_text`.
        named: whether each line says whose record it is.
        as_json: one line of JSON for each record.
        left: how many records are enough; None for all.
    """

    codec: str
    named: bool
    as_json: bool
    left: int | None = None
    _dropped: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])

    def take(self, news: TapNews) -> bool:
        """Print what is new; say whether it is enough."""
        if news.sentence:
            click.echo(news.sentence, err=True)
        for record in news.records:
            self._print(news.job, news.epoch, record)
            if self.left is not None:
                self.left -= 1
                if self.left <= 0:
                    return True
        if news.port is not None:
            self._dropped[news.job, news.epoch] = news.dropped
        if news.ended and news.port is not None:
            click.echo(f"{news.job}.{news.port.port} ended after {_records(news)}", err=True)
        return False

    def close(self) -> None:
        """Say how much was left out."""
        dropped = sum(self._dropped.values())
        if dropped:
            click.echo(
                f"{count_text(dropped)} more records passed and were not shown; "
                "--every shows fewer, evenly",
                err=True,
            )

    def _print(self, job: str, epoch: int, record: TapRecord) -> None:
        read = read_record(record.data, record.size_bytes, headers=record.headers, codec=self.codec)
        if self.as_json:
            print_document(
                {
                    "job": job,
                    "epoch": epoch,
                    "sequence": record.sequence,
                    "size_bytes": record.size_bytes,
                    "kind": read.kind,
                    "value": read.value,
                    "headers": read.headers,
                }
            )
            return
        where = f"{job} " if self.named else ""
        headers = ""
        if read.headers is not None:
            headers = " ".join(f"{key}={value}" for key, value in read.headers.items())
            headers = f"[{headers}] "
        click.echo(f"{where}{record.sequence:>8}  {headers}{read.shown}")


@dataclass(slots=True)
class _Passed:
    at: float
    records: int
    bytes: int


@dataclass(slots=True)
class RatePrinter:
    """Prints a line a second and replica: how fast records pass, and how far consumers are behind.

    Args:
        clock: seconds on a monotonic clock.
        as_json: one line of JSON instead.
    """

    clock: Callable[[], float]
    as_json: bool
    _before: dict[tuple[str, int], _Passed] = field(default_factory=dict[tuple[str, int], _Passed])

    def take(self, news: TapNews) -> bool:
        """Print a line when it is time; never enough."""
        if news.sentence:
            click.echo(news.sentence, err=True)
        if news.port is None:
            return False
        now = self.clock()
        passed = _Passed(now, news.port.records, news.port.bytes)
        before = self._before.setdefault((news.job, news.epoch), passed)
        if before is passed:
            return False
        if now - before.at < _RATE_SECONDS and not news.ended:
            return False
        self._before[news.job, news.epoch] = passed
        seconds = max(now - before.at, 1e-6)
        self._print(
            news,
            (passed.records - before.records) / seconds,
            (passed.bytes - before.bytes) / seconds,
        )
        return False

    def close(self) -> None:
        """Nothing is left to be said."""

    def _print(self, news: TapNews, records: float, size: float) -> None:
        if self.as_json:
            print_document(
                {
                    "job": news.job,
                    "epoch": news.epoch,
                    "records_per_second": records,
                    "bytes_per_second": size,
                    "port": news.port,
                    "consumers": news.consumers,
                    "ended": news.ended,
                }
            )
            return
        lags = "   ".join(_lag(consumer) for consumer in news.consumers) or "nobody reads it"
        ended = "   ended" if news.ended else ""
        click.echo(
            f"{news.job}  {count_text(records)} records/s  {bytes_text(size)}/s  "
            f"{_records(news)}   {lags}{ended}"
        )


def _records(news: TapNews) -> str:
    count = 0 if news.port is None else news.port.records
    return f"{count_text(count)} record{'' if count == 1 else 's'}"


def _lag(consumer: TapConsumer) -> str:
    name = consumer.lane.partition("/")[2]
    if consumer.done:
        return f"{name} is done"
    return f"{name} is {count_text(consumer.behind_records)} behind"
