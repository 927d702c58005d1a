"""Job code as a process of its own, with its ports as inherited descriptors."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

import shoal.job
from shoal.job import JobError, testing
from shoal.job.block import (
    ACK,
    DATA,
    END,
    START,
    Block,
    encode_data,
    encode_mark,
    encode_text,
)
from shoal.job.block_reader import BlockReader
from tests.kit.until import until_sync

SDK = Path(shoal.job.__file__).parents[2]

DOUBLE = """
from shoal import job

@job.main
def double(number):
    print("double", number)
    if number == 13:
        raise ValueError("unlucky")
    return 2 * number
"""

MEBIBYTE = 1024 * 1024


def script(folder: Path, text: str) -> list[str]:
    """A program of that text, and the command that runs it."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return [sys.executable, str(path)]


def test_prints_stay_on_stdout(tmp_path: Path) -> None:
    result = testing.run_program(script(tmp_path, DOUBLE), {"number": [1, 2]}, ["doubled"])
    assert result.outputs["doubled"] == [2, 4]
    assert result.stdout == "double 1\ndouble 2\n"
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.ended["doubled"]
    assert result.acknowledged["number"] == 2


def test_a_round_that_raises_ends_nothing_well(tmp_path: Path) -> None:
    result = testing.run_program(script(tmp_path, DOUBLE), {"number": [1, 13, 2]}, ["doubled"])
    assert result.exit_code == 1
    assert "ValueError: unlucky" in result.stderr
    assert not result.ended["doubled"]
    assert result.acknowledged["number"] <= 1


def test_a_status_of_its_own_is_kept(tmp_path: Path) -> None:
    text = "import sys\nfrom shoal import job\n@job.main\ndef end(number):\n    sys.exit(3)\n"
    result = testing.run_program(script(tmp_path, text), {"number": [1]}, ["out"])
    assert (result.exit_code, result.ended["out"], result.stderr) == (3, False, "")


def test_msgpack_that_is_not_installed_is_named_with_the_remedy(tmp_path: Path) -> None:
    text = "from shoal import job\n@job.main(codecs={'n': 'msgpack'})\ndef take(n):\n    return n\n"
    command, path = script(tmp_path, text)
    without_packages = "-S"
    result = testing.run_program([command, without_packages, path], {"n": [1]}, ["out"])
    assert result.exit_code == 1
    assert "add it to the requirements of this job" in result.stderr


def test_ports_may_be_stdin_and_stdout(tmp_path: Path) -> None:
    result = testing.run_program(
        script(tmp_path, DOUBLE), {"number": [1, 2]}, ["doubled"], stdio=["number", "doubled"]
    )
    assert result.outputs["doubled"] == [2, 4]
    assert result.stderr == "double 1\ndouble 2\n"  # and not among the records


def test_started_by_hand_it_says_how_to_be_started(tmp_path: Path) -> None:
    ended = subprocess.run(
        script(tmp_path, DOUBLE),
        env={"PYTHONPATH": str(SDK)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "SHOAL_PORTS is not set" in ended.stderr
    assert "`shoal run`" in ended.stderr
    assert "Traceback" not in ended.stderr


FAILING = """
from shoal import job

def halve(n):
    return 10 / n

@job.main
def half(a, b=0):
    try:
        return halve(a)
    except ZeroDivisionError as error:
        raise ValueError("no half") from error
"""


def test_a_round_that_raises_shows_its_own_frames_and_its_record(tmp_path: Path) -> None:
    result = testing.run_program(script(tmp_path, FAILING), {"a": [5, 2, 0, 1]}, ["out"])
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "shoal.job: it was given record 2 of the input 'a'"
    assert lines[-1] == "ValueError: no half"
    assert f"{SDK}" not in result.stderr
    assert sum(" in half" in line for line in lines) == 2
    assert any("return 10 / n" in line for line in lines)
    assert "direct cause" in result.stderr


def test_lists_of_records_and_several_inputs_are_named(tmp_path: Path) -> None:
    text = "from shoal import job\n@job.main\ndef add(a, b):\n    assert a != [3]\n    return a\n"
    result = testing.run_program(
        script(tmp_path, text), {"a": [1, 2, 3], "b": [1, 2, 3]}, ["out"], block_count={"a": 2}
    )
    assert result.stderr.startswith(
        "shoal.job: it was given record 2 of the input 'a' and record 1 of the input 'b'\n"
    )


def test_a_source_and_a_stream_name_their_record(tmp_path: Path) -> None:
    source = (
        "from shoal import job\n@job.source\ndef make():\n    yield 1\n    yield 2\n    1 / 0\n"
    )
    made = testing.run_program(script(tmp_path, source), {}, ["out"])
    assert made.stderr.startswith("shoal.job: next was record 2 of the output 'out'\n")
    stream = (
        "from shoal import job\n@job.stream\ndef read():\n"
        "    for a in job.inputs['a']:\n        job.outputs['out'].send({}[a])\n"
    )
    read = testing.run_program(script(tmp_path, stream), {"a": [7]}, ["out"])
    assert read.stderr.startswith("shoal.job: it was given record 0 of the input 'a'\n")
    assert read.stderr.endswith("KeyError: 7\n")


def test_a_mistake_that_the_library_names_comes_without_its_frames(tmp_path: Path) -> None:
    text = "from shoal import job\n@job.main\ndef add(a):\n    return {'x': a}\n"
    result = testing.run_program(script(tmp_path, text), {"a": [1]}, ["one", "two"])
    assert "returned a value for output 'x', which this job does not have" in result.stderr
    assert f"{SDK}" not in result.stderr


def test_a_program_shows_its_failures_in_its_own_way_if_it_has_one(tmp_path: Path) -> None:
    text = "import sys\nsys.excepthook = lambda *_: print('mine', file=sys.stderr)\n" + FAILING
    assert testing.run_program(script(tmp_path, text), {"a": [0]}, ["out"]).stderr == "mine\n"


def test_streams_that_were_forgotten_are_named(tmp_path: Path) -> None:
    text = "from shoal import job\nfor n in job.inputs['n']:\n    job.outputs['out'].send(n)\n"
    result = testing.run_program(script(tmp_path, text), {"n": [1]}, ["out"])
    assert not result.ended["out"]
    assert "call job.end() at the end" in result.stderr


def test_streams_at_the_top_of_a_script_end_when_it_says_so(tmp_path: Path) -> None:
    text = (
        "from shoal import job\nfor n in job.inputs['n']:\n"
        "    job.outputs['out'].send(n)\njob.end()\n"
    )
    result = testing.run_program(script(tmp_path, text), {"n": [1, 2]}, ["out"])
    assert (result.outputs["out"], result.ended["out"], result.stderr) == ([1, 2], True, "")


def test_a_class_runs_under_the_name_guard(tmp_path: Path) -> None:
    text = (
        "from shoal import job\nclass Last:\n    def run(self, n): self.n = n\n"
        "    def finish(self):\n        return self.n\n"
        "if __name__ == '__main__':\n    job.run(Last)\n"
    )
    result = testing.run_program(script(tmp_path, text), {"n": [1, 2, 7]}, ["out"])
    assert result.outputs["out"] == [7]


def test_a_raw_port_is_refused_with_the_remedy(tmp_path: Path) -> None:
    result = testing.run_program(
        script(tmp_path, DOUBLE), {"number": ["1"]}, ["doubled"], formats={"number": "lines"}
    )
    assert result.exit_code == 1
    assert "input port 'number' has the format 'lines'" in result.stderr


def test_a_worker_that_goes_away_is_named(tmp_path: Path) -> None:
    with Board(script(tmp_path, DOUBLE), inputs=["number"]) as board:
        board.send("number", encode_text(START, 0, "{}"))
        board.ports["number"].close()
        assert board.process.wait(30) == 1
    assert "input port 'number': the stream broke off at byte 26" in board.stderr()


BEGIN = encode_text(START, 0, "{}")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode_data(0, [b"j1"]), "the first block is of kind 1, not START"),
        (BEGIN + encode_data(1, [b"j1"]), "record 1 came where 0 was due"),
        (
            BEGIN + encode_data(0, [b"j1"]) + encode_mark(END, 2),
            "ended at record 2, and 1 have come",
        ),
        (BEGIN + BEGIN, "a block of kind 4 out of turn"),
        (BEGIN + b"\x09" + bytes(23), "no block begins with kind 9 at byte 26"),
        (encode_text(START, 0, "[1]"), "START says b'[1]'"),
    ],
)
def test_a_worker_that_breaks_the_format_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    with Board(script(tmp_path, DOUBLE), ["number"], ["doubled"]) as board:
        board.send("doubled", BEGIN)
        board.send("number", data)
        assert board.process.wait(30) == 1
    assert "input port 'number': " in board.stderr()
    assert words in board.stderr()


def test_inputs_that_begin_at_different_rounds_are_refused(tmp_path: Path) -> None:
    text = "from shoal import job\n@job.main\ndef add(a, b):\n    return a + b\n"
    with Board(script(tmp_path, text), ["a", "b"], ["out"]) as board:
        for name, first in (("a", 3), ("b", 4), ("out", 3)):
            board.send(name, encode_text(START, first, "{}"))
        assert board.process.wait(30) == 1
    assert "the inputs begin at different rounds: {'a': 3, 'b': 4}" in board.stderr()


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ("no json", "which is no description of ports"),
        ('{"inputs": {"a": {}}}', "KeyError('fd')"),
        ('{"outputs": {"a": {"fd": 77}}}', "output port 'a': descriptor 77 is no connected socket"),
        ('{"outputs": {"a": {"fd": 2}}}', "output port 'a': descriptor 2 is no connected socket"),
    ],
)
def test_ports_that_are_none_are_named(ports: str, words: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        script(tmp_path, "from shoal import job\njob.inputs['a']\n"),
        env={"PYTHONPATH": str(SDK), "SHOAL_PORTS": ports},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert words in ended.stderr


# ---- programs in any language -------------------------------------------------------------------


def test_sort_sorts_lines() -> None:
    """Cases F6 and F17."""
    result = testing.run_program(
        ["sort", "-n"],
        {"numbers": ["10", "9", b"1"]},
        ["sorted"],
        formats={"numbers": "lines", "sorted": "lines"},
        stdio=["numbers", "sorted"],
    )
    assert result.outputs["sorted"] == ["1", "9", "10"]


def test_descriptors_are_numbers_in_the_arguments() -> None:
    """Case F6."""
    copy = "import os, sys; os.write(int(sys.argv[2]), os.read(int(sys.argv[1]), 8))"
    result = testing.run_program(
        [sys.executable, "-c", copy, "{inputs.numbers.fd}", "{outputs.same.fd}"],
        {"numbers": [1, 2**32 - 1]},
        ["same"],
        formats={"numbers": "u32", "same": "u32"},
    )
    assert result.outputs["same"] == [1, 2**32 - 1]


def test_fifos_are_paths_in_the_arguments() -> None:
    """Case F6: also of a program that opens its output twice."""
    script = 'head -n 2 "$1" >"$2"; echo "$SHOAL_PORTS" >>"$2"'
    result = testing.run_program(
        ["sh", "-c", script, "sh", "{inputs.numbers.path}", "{outputs.same.path}"],
        {"numbers": map(str, range(100_000))},
        ["same"],
        formats={"numbers": "lines", "same": "lines"},
        fifo=["numbers", "same"],
    )
    zero, one, ports = result.outputs["same"]
    assert (zero, one) == ("0", "1")
    assert json.loads(ports)["inputs"]["numbers"]["path"].endswith("/numbers")
    assert "fd" not in json.loads(ports)["outputs"]["same"]


def test_a_fifo_that_nobody_opens_and_one_that_blocks() -> None:
    def run(script: str) -> testing.Result:
        return testing.run_program(
            ["sh", "-c", script, "sh", "{inputs.numbers.path}", "{outputs.same.path}"],
            {"numbers": ["1"]},
            ["same"],
            formats={"numbers": "lines", "same": "u32"},
            fifo=["numbers", "same"],
            deadline_seconds=5 if script == "exit 3" else 0.2,
        )

    ended = run("exit 3")
    assert (ended.exit_code, ended.outputs["same"]) == (3, [])
    with pytest.raises(testing.DeadlineError):
        run('cat "$1"; cat "$2"')


@pytest.mark.parametrize("name", ["blocks", "unknown"])
def test_what_cannot_be_a_fifo_is_named(name: str) -> None:
    with pytest.raises(JobError, match=f"'{name}' is to be a FIFO"):
        testing.run_program(["true"], {}, ["blocks"], fifo=[name])


@pytest.mark.parametrize(
    ("port_format", "values"),
    [("jsonl", [{"a": 1}, [2]]), ("bytes:3", [b"abc", b"\n\x00\xff"]), ("lines", ["", "x"])],
)
def test_formats(port_format: str, values: list[object]) -> None:
    formats = {"there": port_format, "back": port_format}
    result = testing.run_program(
        ["cat"], {"there": values}, ["back"], formats=formats, stdio=["there", "back"]
    )
    assert result.outputs["back"] == values


def test_half_a_record_is_named() -> None:
    with pytest.raises(JobError, match="1 bytes into a record of 4"):
        testing.run_program(["printf", "12345"], {}, ["out"], formats={"out": "u32"}, stdio=["out"])


# ---- when what is written -----------------------------------------------------------------------


class Board:
    """A job's process and the worker's ends of its ports, for tests that look between the bytes."""

    def __init__(
        self, argv: list[str], inputs: list[str] | None = None, outputs: list[str] | None = None
    ) -> None:
        pairs = {name: socket.socketpair() for name in [*(inputs or []), *(outputs or [])]}
        said = {
            direction: {name: {"fd": pairs[name][1].fileno(), "format": "blocks"} for name in names}
            for direction, names in (("inputs", inputs or []), ("outputs", outputs or []))
        }
        self.ports = {name: pair[0] for name, pair in pairs.items()}
        self.readers = {name: BlockReader() for name in pairs}
        for port in self.ports.values():
            port.settimeout(30)
        self.process = subprocess.Popen(
            argv,
            env={"PYTHONPATH": str(SDK), "SHOAL_PORTS": repr(said).replace("'", '"')},
            pass_fds=[pair[1].fileno() for pair in pairs.values()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pair in pairs.values():
            pair[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._said = self.process.communicate()[1]
        for port in self.ports.values():
            port.close()

    def stderr(self) -> str:
        """What the process said on stderr, when it is over."""
        return self._said

    def send(self, name: str, data: bytes) -> None:
        """Write to the job."""
        self.ports[name].sendall(data)

    def blocks(self, name: str) -> Iterator[Block]:
        """What the job writes, until it closes the port."""
        while data := self.ports[name].recv(65536):
            yield from self.readers[name].feed(data)

    def answer(self, line: str) -> None:
        """Let a job that waits in `input()` go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


BUSY = """
from shoal import job

@job.stream
def busy():
    for number in job.inputs["number"]:
        job.outputs["out"].send(number)
        input()
"""


def test_a_record_leaves_while_the_job_is_busy(tmp_path: Path) -> None:
    with Board(script(tmp_path, BUSY), ["number"], ["out"]) as board:
        board.send("out", encode_text(START, 0, "{}"))
        board.send("number", encode_text(START, 0, "{}") + encode_data(0, [b"j1", b"j2"]))
        blocks = board.blocks("out")
        assert [bytes(one) for one in next(blocks).records()] == [b"j1"]
        board.answer("go on")
        assert [bytes(one) for one in next(blocks).records()] == [b"j2"]


def test_only_rounds_that_are_over_are_acknowledged(tmp_path: Path) -> None:
    with Board(script(tmp_path, BUSY), ["number"], ["out"]) as board:
        board.send("out", encode_text(START, 0, "{}"))
        board.send("number", encode_text(START, 40, "{}") + encode_data(40, [b"j1", b"j2"]))
        assert next(board.blocks("out")).first == 0
        board.answer("the first is processed")
        acks = (block for block in board.blocks("number") if block.kind == ACK)
        assert next(acks).first == 41
        board.answer("the second too")
        assert next(acks).first == 42


# Not getrusage: its peak begins with that of the process that started this one.
PRODUCE = """
import sys
from pathlib import Path
from shoal import job

@job.source
def produce():
    for number in range(int(sys.argv[1])):
        yield bytes(int(sys.argv[2]))
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024, flush=True)
"""


def is_asleep(pid: int) -> bool:
    """Whether the process waits for something."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "S"


@pytest.mark.parametrize(("count", "size"), [(300, MEBIBYTE), (1_000_000, 64)])
def test_a_producer_waits_for_its_reader_and_keeps_nothing(
    count: int, size: int, tmp_path: Path
) -> None:
    argv = [*script(tmp_path, PRODUCE), str(count), str(size)]
    with Board(argv, outputs=["out"]) as board:
        board.send("out", encode_text(START, 0, "{}"))
        first = board.ports["out"].recv(24, socket.MSG_PEEK)
        assert first  # it has begun to write
        until_sync(lambda: is_asleep(board.process.pid), 30, "the producer waits")
        came = 0
        for block in board.blocks("out"):
            if block.kind == DATA:
                came += block.total
                assert {len(record) for record in block.records()} == {size + 1}
        assert came == count
        assert board.process.wait(30) == 0
        assert board.process.stdout is not None
        peak_mebibytes = int(board.process.stdout.read())
    assert peak_mebibytes < 100


# ---- other Pythons ------------------------------------------------------------------------------

OTHERS = [name for name in ("python3.6", "python3.8", "python3.13") if shutil.which(name)]


def works(name: str) -> bool:
    """Whether the command runs: version managers leave names behind that only complain."""
    return subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["python3.6", "python3.8", "python3.13"])
def test_other_pythons_run_it(name: str, tmp_path: Path) -> None:
    if name not in OTHERS or not works(name):
        pytest.skip(f"{name} is not on this machine; the syntax of 3.6 is checked in any case")
    argv = [name, *script(tmp_path, DOUBLE)[1:]]
    result = testing.run_program(argv, {"number": [1, 2]}, ["doubled"])
    assert (result.outputs["doubled"], result.stderr) == ([2, 4], "")
