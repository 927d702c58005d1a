"""ProgressRows, prefixes, figures and names: the text that the command is made of."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from shoal import spec, view
from shoal.cli.document import to_document
from shoal.cli.figures import (
    bytes_text,
    count_text,
    duration_text,
    scale_text,
    state_style,
    state_word,
)
from shoal.cli.log_printer import LogPrinter
from shoal.cli.moment_option import moment_before
from shoal.cli.naming import job, pipeline_or_job
from shoal.cli.progress import ProgressRows
from shoal.cli.single_command import Wishes, id_of, single_command
from shoal.cli.streams import remarks
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState, Reason, ReasonCode, ScaleState, StreamCounters
from shoal.names import JobRef, PipelineRef

JOB = view.JobView("pipelines/p/jobs/a", "a", JobState.RUNNING, node="node-1")
PIPELINE = view.PipelineView(
    "p", "default", PipelineState.RUNNING, spec.Pipeline("p", ()), jobs=(JOB,)
)


def moving(records: int, size: int) -> view.PipelineView:
    counters = (
        StreamCounters("in", output=False, records=7, bytes=7),
        StreamCounters("out", output=True, records=records, bytes=size),
    )
    return replace(PIPELINE, jobs=(replace(JOB, streams=counters),))


def test_rates_follow_the_counters() -> None:
    progress = ProgressRows()
    assert progress.rows(moving(0, 0), 0.0)[0].flow == ""
    for second in range(1, 30):
        progress.rows(moving(100 * second, 1536 * 1024 * second), float(second))
    (row,) = progress.rows(moving(3000, 30 * 1536 * 1024), 30.0)
    assert row.records_rate == pytest.approx(100, rel=0.01)
    assert row.flow == "3,000 records, 100/s, 1.5 MiB/s"


def test_a_second_attempt_is_shown_with_why_there_is_one() -> None:
    died = Reason(ReasonCode.LOST, 0, "the stream worker of node node-3 died")
    attempts = (
        view.AttemptView("a/1", 1, 1, JobState.LOST, "node-3", died),
        view.AttemptView("a/2", 2, 2, JobState.RUNNING, "node-1"),
    )
    job = replace(JOB, attempts=attempts)
    (row,) = ProgressRows().rows(replace(PIPELINE, jobs=(job,)), 0.0)
    assert row.text == "attempt 1: LOST: the stream worker of node node-3 died"


def test_a_new_attempt_counts_from_nothing() -> None:
    progress = ProgressRows()
    progress.rows(moving(1000, 1000), 0.0)
    (row,) = progress.rows(moving(3, 3), 1.0)
    assert (row.flow, row.records_rate) == ("3 records", 0.0)


def test_a_line_is_said_once_a_change_of_state_and_now_and_then_in_between() -> None:
    progress = ProgressRows()
    assert progress.lines(PIPELINE, 0.0) == ("a: running on node-1",)
    assert progress.lines(moving(5, 5), 1.0) == ()
    (line,) = progress.lines(moving(5, 5), 6.0)
    assert line.startswith("a: running on node-1: 5 records")
    assert progress.lines(moving(9, 9), 7.0) == ()
    failed = replace(
        JOB, state=JobState.FAILED, reason=Reason(ReasonCode.EXIT, 3, "it ended with 3\nTraceback")
    )
    assert progress.lines(replace(PIPELINE, jobs=(failed,)), 8.0) == (
        "a: failed: EXIT 3: it ended with 3",
    )
    waits = replace(JOB, state=JobState.QUEUED, node="", waiting_for="no node has a camera")
    (line,) = progress.lines(replace(PIPELINE, jobs=(waits,)), 8.0)
    assert line == "a: queued: no node has a camera"


def test_k17_what_a_job_waits_for_is_a_line_once_a_change_and_not_once_a_second() -> None:
    progress = ProgressRows()

    def waiting(words: str, now: float) -> tuple[str, ...]:
        job = replace(JOB, state=JobState.PREPARING, progress=words, waiting_for=words)
        return progress.lines(replace(PIPELINE, jobs=(job,)), now)

    assert waiting("", 0.0) == ("a: preparing on node-1",)
    words = (
        "fetching x: cannot resolve y; tried {} times, again in {} s, given up in {} s; {} s so far"
    )
    (line,) = waiting(words.format(1, 0, 600, 5), 6.0)
    assert line == f"a: preparing on node-1: {words.format(1, 0, 600, 5)}"
    for number in range(7, 600, 5):
        assert waiting(words.format(number, 8, 600 - number, number), float(number)) == ()
    assert waiting(words.replace("resolve", "connect"), 600.0)


def test_b4_what_several_jobs_wait_for_is_said_once() -> None:
    waits = replace(JOB, state=JobState.QUEUED, node="", waiting_for="7 jobs need 7 cpus")
    jobs = tuple(replace(waits, name=f"pipelines/p/jobs/j{n}") for n in range(3))
    other = replace(waits, name="pipelines/p/jobs/other", waiting_for="no node has a camera")
    pipeline = replace(PIPELINE, jobs=(*jobs, other))
    said = ["7 jobs need 7 cpus", "waits as j0 does", "waits as j0 does", "no node has a camera"]
    assert [row.text for row in ProgressRows().rows(pipeline, 0.0)] == said
    assert [line.partition(": queued: ")[2] for line in ProgressRows().lines(pipeline, 0.0)] == said


def test_b15_progress_waits_until_nothing_is_typed() -> None:
    """What goes wrong is said at once, and what changed meanwhile when the prompt has ended."""
    progress = ProgressRows()

    def said(prompt: JobState, other: JobState, now: float) -> tuple[str, ...]:
        jobs = (
            replace(JOB, name="pipelines/p/jobs/prompt", state=prompt),
            replace(JOB, name="pipelines/p/jobs/b", state=other),
        )
        return progress.lines(replace(PIPELINE, jobs=jobs), now, typing="prompt")

    assert len(said(JobState.QUEUED, JobState.QUEUED, 0.0)) == 2
    assert said(JobState.RUNNING, JobState.PREPARING, 1.0) == ()
    assert said(JobState.RUNNING, JobState.RUNNING, 20.0) == ()
    assert said(JobState.RUNNING, JobState.RETRY_WAIT, 21.0) == ("b: retry wait on node-1",)
    assert said(JobState.DRAINING, JobState.RUNNING, 22.0) == (
        "prompt: draining on node-1",
        "b: running on node-1",
    )


def chunk(job_name: str, data: bytes, number: int = 1, stream: int = 1) -> view.LogChunk:
    attempt = f"pipelines/p/jobs/{job_name}/attempts/{number}"
    return view.LogChunk(attempt, view.LogStream(stream), 0, data)


def test_lines_of_several_jobs_are_kept_apart() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    printer = LogPrinter(out, err, prefixed=True)
    printer.write(chunk("a", b"one\ntw"))
    printer.write(chunk("b", b"from b\n"))
    printer.write(chunk("a", b"o\nrest"))
    printer.write(chunk("a", b"trouble\n", number=2, stream=2))
    printer.close()
    assert out.getvalue() == b"a | one\nb | from b\na | two\na | rest\n"
    assert err.getvalue() == b"a#2 | trouble\n"


def test_a_single_job_is_passed_on_byte_for_byte() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    printer = LogPrinter(out, err, prefixed=False)
    printer.write(chunk("a", b"\x00\xff no newline"))
    printer.close()
    assert out.getvalue() == b"\x00\xff no newline"


def test_two_attempts_never_share_a_line() -> None:
    out = io.BytesIO()
    err = io.BytesIO()
    printer = LogPrinter(out, err, prefixed=False)
    printer.write(chunk("a", b"ha"))
    printer.write(chunk("a", b"lf"))
    printer.write(chunk("a", b"", number=2))
    printer.write(chunk("a", b"whole\n", number=2))
    printer.write(chunk("a", b"again\n", number=3))
    printer.close()
    assert out.getvalue() == b"half\nwhole\nagain\n"
    assert err.getvalue() == b"--- attempt 2 of a ---\n--- attempt 3 of a ---\n"


def test_a_line_has_the_time_at_which_it_began() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def at(seconds: float, data: bytes) -> view.LogChunk:
        return replace(chunk("a", data), print_time=noon + timedelta(seconds=seconds))

    for prefixed, name in ((False, b""), (True, b"a | ")):
        out = io.BytesIO()
        printer = LogPrinter(out, io.BytesIO(), prefixed=prefixed, timed=True)
        for piece in (at(0, b"one\nt"), at(1.5, b"w"), at(2, b"o\n\nend"), at(3, b".")):
            printer.write(piece)
        printer.write(replace(chunk("a", b"later\n", stream=2), print_time=None))
        printer.close()
        assert out.getvalue().splitlines() == [
            b"2026-01-01T12:00:00.000Z " + name + b"one",
            b"2026-01-01T12:00:00.000Z " + name + b"two",
            b"2026-01-01T12:00:02.000Z " + name,
            b"2026-01-01T12:00:02.000Z " + name + b"end.",
        ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5m", "2026-06-01T11:55:00+02:00"),
        ("90", "2026-06-01T11:58:30+02:00"),
        ("11:30", "2026-06-01T11:30:00+02:00"),
        ("13:00", "2026-05-31T13:00:00+02:00"),
        ("10:00:01Z", "2026-05-31T10:00:01+00:00"),
        ("2026-05-31T23:00:00Z", "2026-05-31T23:00:00+00:00"),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago(text: str, wanted: str) -> None:
    now = datetime.fromisoformat("2026-06-01T12:00:00+02:00")
    assert moment_before(text, now).isoformat() == wanted


def test_a_line_is_ended_where_something_else_follows_on_the_same_terminal() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    printer = LogPrinter(out, err, prefixed=False, together=True)
    printer.write(chunk("a", b"no newline"))
    printer.write(chunk("a", b"a whole line\n", stream=2))
    printer.close()
    assert (out.getvalue(), err.getvalue()) == (b"no newline\n", b"a whole line\n")


def test_the_end_of_a_log_that_was_cut_is_known_to_be_missing() -> None:
    printer = LogPrinter(io.BytesIO(), io.BytesIO(), prefixed=False)
    printer.write(chunk("a", b"noise\n" * 10_000, stream=2))
    assert printer.said_last("noise\nnoise\n")
    assert not printer.said_last("noise\nlast words")
    printer.write(chunk("a", b"last wo", stream=2))
    printer.write(chunk("a", b"rds\n", stream=2))
    assert printer.said_last("noise\nlast words")


def test_a_line_without_end_is_shown_all_the_same() -> None:
    out = io.BytesIO()
    printer = LogPrinter(out, out, prefixed=True)
    printer.write(chunk("a", b"x" * 100_000))
    assert len(out.getvalue()) == 100_005


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (bytes_text(0), "0 B"),
        (bytes_text(1536), "1.5 KiB"),
        (bytes_text(2**50), "1024.0 TiB"),
        (count_text(0.5), "0.5"),
        (count_text(12_345), "12,345"),
        (count_text(2_500_000), "2.5 M"),
        (duration_text(timedelta(seconds=61)), "61 s"),
        (duration_text(timedelta(minutes=5)), "5 min"),
        (duration_text(timedelta(days=3)), "3 d"),
        (duration_text(timedelta(seconds=-5)), "0 s"),
        (state_word(JobState.RETRY_WAIT), "retry wait"),
        (state_style(PipelineState.FAILED), "red"),
        (state_style(JobState.RUNNING), "cyan"),
        (state_style(JobState.QUEUED), ""),
    ],
)
def test_figures(text: str, wanted: str) -> None:
    assert text == wanted


def test_documents_have_names_and_times() -> None:
    document = to_document(replace(PIPELINE, create_time=datetime(2026, 1, 2, 3, tzinfo=UTC)))
    assert document["name"] == "pipelines/p"
    assert document["create_time"] == "2026-01-02T03:00:00Z"
    assert document["jobs"][0]["state"] == "RUNNING"
    assert document["spec"]["labels"] == {}


def test_names_are_read_in_every_form() -> None:
    whole = PipelineRef("default", "p")
    one = JobRef("default", "p", "j")
    for text, wanted in (("p", whole), ("pipelines/p", whole), ("p/j", one), (one.name, one)):
        assert pipeline_or_job(text, "default") == wanted
    with pytest.raises(click.ClickException, match="p/JOB"):
        job("p", "default")


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        ("wc", "wc"),
        ("./My_Tool.py", "my-tool"),
        ("/usr/bin/python3.11", "python3"),
        ("7z", "job-7z"),
        ("", "job"),
        ("ü", "job"),
        ("x" * 100, "x" * 40),
    ],
)
def test_a_program_gives_its_name(program: str, wanted: str) -> None:
    assert id_of(program) == wanted


def test_a_command_takes_its_files_along(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "main.py").touch()
    (folder / "in.txt").touch()
    (tmp_path / "in.txt").touch()
    pipeline, entries = single_command(
        ["wc"], Wishes(folder=folder, stdin=folder / "in.txt", retries=2)
    )
    assert pipeline.jobs[0].stdin == "in.txt"
    assert pipeline.jobs[0].retry.attempts == 3
    assert [entry.name for entry in entries] == ["in.txt", "main.py"]
    pipeline, entries = single_command(["wc"], Wishes(folder=folder, stdin=tmp_path / "in.txt"))
    assert pipeline.jobs[0].stdin == "_in.txt"
    assert {entry.name for entry in entries} == {"_in.txt", "in.txt", "main.py"}
    pipeline, entries = single_command(["wc"], Wishes(stdin=tmp_path / "in.txt"))
    assert [entry.name for entry in entries] == ["in.txt"]
    with pytest.raises(ShoalError, match="timeout: -1 is not allowed"):
        single_command(["wc"], Wishes(timeout_seconds=-1))


def test_what_is_to_be_said_of_streams_is_said_by_job_and_port() -> None:
    quiet = StreamCounters("in", output=False, records=7)
    assert remarks([replace(JOB, streams=(quiet,))]) == ()
    streams = (
        replace(quiet, blocked_seconds=75.4, broken=2),
        replace(quiet, port="other", mismatches=1),
        StreamCounters("out", output=True, blocked_seconds=1.0, refused=1),
        StreamCounters("more", output=True, blocked_seconds=7.0),
    )
    job = replace(JOB, streams=streams)
    said = remarks([job])
    assert [line.partition(": ")[0] for line in said] == [
        "warning",
        "a.in",
        "a.in",
        "a.out",
        "a.more",
    ]
    assert "a.other: its producer was run again and sent other records" in said[0]
    assert said[1] == "a.in: blocked for 75 s: the program of a does not read it"
    assert "broke 2 times" in said[2]
    assert "1 call refused" in said[3]
    assert said[4] == "a.more: blocked for 7 s: a consumer does not take what a sends"
    (row,) = ProgressRows().rows(replace(PIPELINE, jobs=(job,)), 0.0)
    assert row.text == "in blocked for 75 s"
    ended = replace(job, state=JobState.SUCCEEDED)
    assert not any("blocked" in line for line in remarks([ended]))


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (view.ScaleView(1, "square", 3, ScaleState.HOLDING), "square is being given 3 replicas"),
        (
            view.ScaleView(1, "square", 1, ScaleState.SETTLED, rounds=47),
            "square got 1 replica; each of those before ends after round 47",
        ),
        (
            view.ScaleView(1, "square", 3, ScaleState.ABANDONED, message="there is no room"),
            "square was not given 3 replicas: there is no room",
        ),
    ],
)
def test_a_change_of_replicas_says_where_it_stands(scale: view.ScaleView, text: str) -> None:
    assert scale_text(scale) == text
