"""`shoal simulate` from its first line to its exit status, faults included."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.kit.until import until

_DEADLINE = 200.0
_SHOAL = (sys.executable, "-m", "shoal.cli")

# Half of the records, then a wait until every fault has happened.
_GATED = """
    name: gated
    bundle: .
    parameters: {gate: {description: a FIFO that holds up the second half}}
    jobs:
      numbers:
        run: python count.py
        variables: {GATE: "${{ parameters.gate }}"}
        outputs: [numbers]
      double:
        run: python double.py
        recovery: resume
        inputs: {numbers: numbers.numbers}
        outputs: [doubles]
      table:
        run: python table.py
        inputs: {doubles: double.doubles}
"""
_FILES = {
    "count.py": (
        "import os\n"
        "from shoal import job\n"
        "@job.source\n"
        "def numbers():\n"
        "    for k in range(100):\n"
        "        if k == 50 and not os.path.exists(os.environ['GATE'] + '.open'):\n"
        "            open(os.environ['GATE']).read()\n"
        "        yield k\n"
    ),
    "double.py": "from shoal import job\n@job.main\ndef double(numbers):\n    return 2 * numbers\n",
    "table.py": (
        "from shoal import job\n"
        "@job.stream\n"
        "def table():\n"
        "    with open('results/table', 'w') as file:\n"
        "        for number in job.inputs['doubles']:\n"
        "            file.write('%d\\n' % number)\n"
        "    print('written')\n"
    ),
}


async def test_faults_happen_and_the_result_is_as_if_they_had_not(tmp_path: Path) -> None:
    """Case F2: the same spec, one folder a job, and it ends by itself."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name, text in _FILES.items():
        (bundle / name).write_text(text)
    (bundle / "pipeline.yaml").write_text(_GATED)
    faults = (
        ("kill double@50 records", "pulling the plug of node-"),
        ("kill-agent table@20 records", "killing the agent of node-"),
        ("stop numbers@0s+200ms", "stand still for 0.2 s"),
        ("drop double-table 300ms", "lose each other for 0.3 s"),
    )
    words = [word for fault, _ in faults for word in ("--fault", fault)]
    process = await _start(
        bundle, "simulate", "--agents", "4", "--set", f"gate={gate}", *words, "pipeline.yaml"
    )
    said: list[str] = []
    reading = asyncio.create_task(_read(process, said))
    await until(
        lambda: (
            all(any(words in line for line in said) for _, words in faults)
            and any("go on" in line for line in said)
            and any("hear each other again" in line for line in said)
        ),
        60,
        "all four faults have happened",
    )
    await until(lambda: any("double: running" in line and "attempt 2" in line for line in said), 60)
    (tmp_path / "gate.open").touch()
    os.close(os.open(gate, os.O_RDWR | os.O_NONBLOCK))
    assert await asyncio.wait_for(process.wait(), _DEADLINE) == 0, "".join(said)
    await reading
    out = bundle / "simulated"
    assert (out / "table" / "results" / "table").read_text() == "".join(
        f"{2 * k}\n" for k in range(100)
    )
    assert (out / "table" / "stdout").read_text() == "written\n"
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"numbers", "double", "table"}


async def test_a_new_pipeline_is_simulated_as_it_is_and_once_more(tmp_path: Path) -> None:
    """Case F1: the scaffold runs; the files of the first simulation are replaced by the second's."""
    assert (await _ended(tmp_path, "new", "hello"))[0] == 0
    folder = tmp_path / "hello"
    for _ in range(2):
        status, said = await _ended(folder, "simulate", "--agents", "1", "pipeline.yaml")
        assert status == 0, said
        table = (folder / "simulated" / "table" / "results" / "squares.csv").read_text()
        assert table.splitlines()[-1] == "30,900"
        assert (folder / "simulated" / "table" / "stdout").read_text() == "30 rows\n"


async def test_a_failure_is_the_exit_status_and_a_fault_that_came_too_late_is_told(
    tmp_path: Path,
) -> None:
    (tmp_path / "p.yaml").write_text(
        "{name: p, jobs: {bad: {run: sh -c 'echo here; echo broken >&2; exit $CODE',"
        " place: {require: {role: camera}}, resources: {devices: [video]}}}}"
    )
    options = ("--agents", "2", "--fault", "kill bad@1h", "--env", "CODE=3", "--name", "other")
    status, said = await _ended(tmp_path, "simulate", *options, "-o", "out", "p.yaml")
    assert status == 1, said
    assert "starting 2 boards for other" in said
    assert "EXIT 3" in said
    assert "'kill bad@1h' never happened" in said
    assert (tmp_path / "out" / "bad" / "stdout").read_text() == "here\n"
    assert (tmp_path / "out" / "bad" / "stderr").read_text() == "broken\n"


async def test_x6_a_producer_that_did_not_repeat_itself_is_told_before_the_cluster_is_gone(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    (tmp_path / "p.yaml").write_text(
        f"""
        name: fickle
        jobs:
          source:
            run: sh -c 'for k in 0 1 2; do echo $SHOAL_ATTEMPT.$k; done;
              [ $SHOAL_ATTEMPT = 2 ] && exec echo last; until [ -e {go} ]; do sleep 0.05; done; exit 3'
            retry: {{attempts: 2, backoff: 100ms}}
            outputs: {{said: {{format: lines, as: stdout}}}}
          sink:
            run: sh -c 'read a; read b; read c; touch {go}; cat > results/rest'
            inputs: {{said: {{from: source.said, format: lines, as: stdin}}}}
        """
    )
    status, said = await _ended(tmp_path, "simulate", "--agents", "1", "p.yaml")
    assert status == 0, said
    assert "warning: sink.said: its producer was run again and sent other records" in said


async def test_x1_ctrl_c_finishes_and_the_files_are_there(tmp_path: Path) -> None:
    """What was counted until then has been processed, without a gap; nothing of the cluster is left."""
    (tmp_path / "p.yaml").write_text(
        """
        name: counter
        jobs:
          src:
            run: sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'
            outputs: {n: {format: lines, as: stdout}}
          sink:
            run: sh -c 'read a; read b; echo begun; (echo $a; echo $b; cat) > results/numbers.txt'
            inputs: {n: {from: src.n, format: lines, as: stdin}}
        """
    )
    state = tmp_path / "state"
    process = await _begun(tmp_path, state)
    process.send_signal(signal.SIGINT)
    said: list[str] = []
    await _read(process, said)
    assert await asyncio.wait_for(process.wait(), _DEADLINE) == 0, "".join(said)
    assert any("press Ctrl-C again to stop at once" in line for line in said)
    numbers = (tmp_path / "simulated" / "sink" / "results" / "numbers.txt").read_text().split()
    assert [int(one) for one in numbers] == list(range(1, len(numbers) + 1))
    await until(lambda: not _processes_of(state), what="every process of the cluster has ended")


async def test_x1_a_second_ctrl_c_ends_everything(tmp_path: Path) -> None:
    """Nothing of the cluster is left, jobs included, although one takes its time to finish."""
    (tmp_path / "p.yaml").write_text(
        "{name: p, jobs: {endless: {grace: 10m, run: "
        """sh -c 'trap "" TERM; echo begun; while :; do sleep 0.2; done'}}}"""
    )
    state = tmp_path / "state"
    process = await _begun(tmp_path, state)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    async with asyncio.timeout(_DEADLINE):
        while b"press Ctrl-C again" not in await process.stderr.readline():
            pass
    process.send_signal(signal.SIGINT)
    said: list[str] = []
    await _read(process, said)
    assert await asyncio.wait_for(process.wait(), _DEADLINE) == 130, "".join(said)
    await until(lambda: not _processes_of(state), what="every process of the cluster has ended")


async def _begun(folder: Path, state: Path) -> asyncio.subprocess.Process:
    """A simulation whose job has said that it begins."""
    process = await _start(
        folder, "simulate", "--agents", "1", "--state", str(state), "--logs", "p.yaml"
    )
    assert process.stdout is not None
    async with asyncio.timeout(_DEADLINE):
        while b"begun" not in await process.stdout.readline():
            pass
    return process


async def _start(folder: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *_SHOAL,
        *words,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _ended(folder: Path, *words: str) -> tuple[int, str]:
    process = await _start(folder, *words)
    async with asyncio.timeout(_DEADLINE):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (stdout + stderr).decode()


async def _read(process: asyncio.subprocess.Process, said: list[str]) -> None:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        said.append(line.decode())


def _processes_of(state: Path) -> Sequence[str]:
    """Whoever names the cluster's folder in its arguments or its environment."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(state) in known:
            found.append(entry.name)
    return found


async def test_a_simulation_is_given_the_secrets_that_its_jobs_name(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(
        "name: push\n"
        "jobs:\n"
        "  push:\n"
        "    run: [sh, -c, 'test \"$TOKEN\" = hunter2-never-shown && echo got $TOKEN']\n"
        "    environment: {python: system}\n"
        "    secrets: {TOKEN: lab-token}\n"
    )
    (tmp_path / "token").write_text("hunter2-never-shown")
    words = ("simulate", "--agents", "1", "--out", "out", "pipeline.yaml")

    async def simulated(*more: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *_SHOAL,
            *words,
            *more,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), _DEADLINE)
        assert b"hunter2-never-shown" not in said
        return process.returncode, said.decode()

    status, said = await simulated()
    assert (status, "give it a value with --secret lab-token=FILE" in said) == (2, True)
    status, said = await simulated("--secret", "lab-token=gone")
    assert (status, "lab-token in gone cannot be read" in said) == (2, True)
    status, said = await simulated("--secret", "lab-token=token", "--secret", "other=token")
    assert (status, "no job gets the secret other" in said) == (2, True)
    status, said = await simulated("--secret", "lab-token=token")
    assert status == 0, said
    assert (tmp_path / "out" / "push" / "stdout").read_text().startswith("got ****")
