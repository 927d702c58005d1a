"""Columns of the CSV sink: what a pattern means."""

from datetime import datetime, timezone

import pytest

from shoal.job.csv_sink import Column, PatternError, cell, columns_of, read


def now() -> datetime:
    """A moment."""
    return datetime(2026, 11, 21, 8, 30, 1, 250_000, tzinfo=timezone.utc)  # noqa: UP017 - as the job has it


def test_f13_a_pattern_has_titles_fields_and_words() -> None:
    """`time,{name},{value}` and more."""
    columns = columns_of("time, {name}, speed={v.x} m/s, sequence, all=record, {2}")
    assert [column.title for column in columns] == ["time", "name", "speed", "sequence", "all", "2"]
    record = {"name": "cam", "v": {"x": 1.5}}
    assert [cell(column, record, 7, now) for column in columns] == [
        "2026-11-21T08:30:01.250Z",
        "cam",
        "1.5 m/s",
        "7",
        '{"name":"cam","v":{"x":1.5}}',
        "",
    ]
    assert cell(Column("2", "{2}"), ["a", "b", "c"], 0, now) == "c"


def test_f13_a_column_that_says_nothing_is_refused() -> None:
    """A typing mistake is no column of constants."""
    with pytest.raises(PatternError, match="'tme'"):
        columns_of("tme,{name}")


@pytest.mark.parametrize(
    "written",
    [b"3.10", b"1e3", b"null", b'"x"', b"", b" 1", b"0x", b'{"a": 1.0}', b"\xff\xfe", b"true"],
)
def test_k14_what_a_program_wrote_stays_as_it_was(written: bytes) -> None:
    """A record of a raw format is its text, also where that could be read as JSON."""
    [column] = columns_of("record")
    assert cell(column, read(written), 0, now).encode("utf-8", "surrogateescape") == written


def test_k14_a_number_in_a_field_keeps_its_digits() -> None:
    record = read(b'{"a": 3.10, "b": 1e3, "c": {"d": [10.0, "\xc3\xa9", null, true]}, "e": null}')
    cells = [cell(column, record, 0, now) for column in columns_of("{a},{b},{c},{e},{c.d.0},{a.0}")]
    assert cells == ["3.10", "1e3", '{"d":[10.0,"é",null,true]}', "", "10.0", ""]
