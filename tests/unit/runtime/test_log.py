"""One line for each fact, with its fields."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from services.runtime.log import CountedLog, LogFormat, fields, setup


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_is_one_line_with_its_fields_last() -> None:
    out = io.StringIO()
    setup("agent", stream=out)
    logging.getLogger("here").info("attempt started", extra=fields(pid=7, why='a "b"', name="x"))
    time, *words = out.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert words == ['INFO agent here attempt started pid=7 why="a \\"b\\"" name=x\n']


def test_text_stays_one_line_whatever_comes_in() -> None:
    out = io.StringIO()
    setup("agent", stream=out)
    logging.getLogger("here").info("two\nlines", extra=fields(peer="evil\r\nINFO forged"))
    assert out.getvalue().count("\n") == 1
    assert "\r" not in out.getvalue()


def test_json_is_one_object_a_line() -> None:
    out = io.StringIO()
    setup("agent", stream=out, log_format=LogFormat.JSON)
    try:
        raise OSError("no room")
    except OSError:
        logging.getLogger("here").exception("failed", extra=fields(path=b"raw", count=2))
    entry = json.loads(out.getvalue())
    assert entry["fields"] == {"path": "b'raw'", "count": 2}
    assert (entry["process"], entry["logger"], entry["level"]) == ("agent", "here", "ERROR")
    assert "OSError: no room" in entry["exception"]


def test_setting_up_twice_does_not_write_twice() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup("agent", stream=first)
    setup("agent", stream=second, level="warning")
    logging.getLogger("here").info("hidden")
    logging.getLogger("here").warning("shown")
    assert not first.getvalue()
    assert second.getvalue().count("\n") == 1


def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'LOUD'"):
        setup("agent", level="LOUD")


def test_counted_log_says_the_first_at_once_and_then_once_a_period(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = iter((0.0, 1.0, 59.0, 60.0, 61.0))
    counted = CountedLog(logging.getLogger("here"), lambda: next(times), period_seconds=60)
    for _ in range(5):
        counted.warn("malformed packet", peer="10.0.0.1")
    assert counted.counts == {"malformed packet": 5}
    said = [record.__dict__["shoal_fields"] for record in caplog.records]
    assert said == [
        {"peer": "10.0.0.1", "count": 1, "total": 1},
        {"peer": "10.0.0.1", "count": 3, "total": 4},
    ]


def test_counted_log_tells_only_so_many_reasons_apart() -> None:
    counted = CountedLog(logging.getLogger("here"), lambda: 0.0, reasons_max=2)
    for reason in ("a", "b", "c", "d", "a"):
        counted.warn(reason)
    assert counted.counts == {"a": 2, "b": 1, "other": 2}
