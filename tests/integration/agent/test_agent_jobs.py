"""Jobs on a real agent: their ends, their files, their words."""

import hashlib
from pathlib import Path

import pytest

from shoal.model import JobState
from shoal.spec import (
    Environment,
    FileInput,
    Job,
    Layout,
    RequirementsStep,
    UrlStep,
    WheelStep,
)
from tests.integration.agent.board import Board
from tests.kit.bundle_archive import tar_of, wheel_of
from tests.kit.until import until


def shell(name: str, script: str) -> Job:
    return Job(name, ("sh", "-c", script))


def alive(marker: str) -> list[int]:
    """Processes whose command line carries a marker."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in words:
                found.append(int(entry.name))
    return found


async def test_a_job_goes_through_its_states_and_its_files_are_stored(board: Board) -> None:
    ref = board.run(
        shell(
            "hello",
            "echo hi; echo oh >&2; mkdir -p results/a; echo x > results/a/b; sleep 1",
        )
    )
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.controller.states(ref) == [
        JobState.PREPARING,
        JobState.RUNNING,
        JobState.ARCHIVING,
        JobState.SUCCEEDED,
    ]
    told = board.controller.observed[ref][-1]
    assert {artifact.path for artifact in told.artifacts} == {"results/a/b", "stdout", "stderr"}
    for artifact in told.artifacts:
        stored = board.artifact(ref, artifact.path)
        assert artifact.key == f"{ref.prefix}/out/{artifact.path}"
        assert artifact.size_bytes == len(stored)
        assert artifact.sha256 == hashlib.sha256(stored).hexdigest()
    assert board.artifact(ref, "results/a/b") == b"x\n"
    assert board.controller.log(ref) == "hi\n"
    assert board.controller.log(ref, 2) == "oh\n"
    assert told.start_time.seconds <= told.end_time.seconds
    await board.idle()


async def test_a_job_that_exits_3_fails_with_its_last_words(board: Board) -> None:
    """E6."""
    ref = board.run(shell("broken", "echo the disk is on fire >&2; exit 3"))
    assert await board.end(ref) is JobState.FAILED
    code, number, message = board.controller.reason(ref)
    assert (code, number) == ("EXIT", 3)
    assert "the disk is on fire" in message
    assert board.controller.log(ref, 2) == "the disk is on fire\n"


async def test_a_job_killed_by_a_signal_says_which(board: Board) -> None:
    ref = board.run(shell("killed", "kill -SEGV $$"))
    assert await board.end(ref) is JobState.FAILED
    assert board.controller.reason(ref)[:2] == ("SIGNAL", 11)


async def test_a_timeout_ends_the_whole_process_group(board: Board) -> None:
    """E6."""
    marker = "shoal-timeout-marker"
    job = Job(
        "slow",
        ("sh", "-c", f"(exec -a {marker} sleep 600) & exec -a {marker} sleep 600", marker),
        timeout_seconds=1,
        grace_seconds=0.2,
    )
    job = Job("slow", ("bash", *job.run[1:]), timeout_seconds=1, grace_seconds=0.2)
    ref = board.run(job)
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert code == "TIMEOUT"
    assert "1 s" in message
    await until(lambda: not alive(marker), 5, "the group being gone")


async def test_a_stopped_job_is_cancelled_and_its_group_gone(board: Board) -> None:
    marker = "shoal-stop-marker"
    ref = board.run(
        Job("endless", ("bash", "-c", f"exec -a {marker} sleep 600"), grace_seconds=0.2)
    )
    await board.state(ref, JobState.RUNNING)
    await until(lambda: alive(marker), 10, "the program")
    board.controller.stop_attempt(ref)
    assert await board.end(ref) is JobState.CANCELLED
    assert board.controller.reason(ref)[0] == "CANCELLED"
    await until(lambda: not alive(marker), 5, "the group being gone")


async def test_a_program_that_is_not_there_is_named(board: Board) -> None:
    ref = board.run(Job("lost", ("no-such-program", "x")))
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert code == "START"
    assert "'no-such-program'" in message


async def test_standard_input_is_a_file_of_the_bundle(board: Board) -> None:
    job = Job("count", ("wc", "-l"), stdin="README.md")
    ref = board.run(job, tar_of({"README.md": "a\nb\nc\n"}))
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "stdout").split() == [b"3"]


async def test_a_task_name_never_reaches_a_shell(board: Board) -> None:
    """E6."""
    ref = board.run(Job("safe", ("echo", "x; touch results/pwned")))
    assert await board.end(ref) is JobState.SUCCEEDED
    assert [artifact.path for artifact in board.controller.observed[ref][-1].artifacts] == [
        "stdout"
    ]


async def test_a_bundle_is_laid_out_as_it_was(board: Board) -> None:
    bundle = tar_of(
        {"code/": "", "code/run.sh": "#!/bin/sh\ncat ../data/in > ../results/out\n", "data/in": "7",
         "empty/": ""},
        {"code/run.sh": 0o755, "code/": 0o750, "empty/": 0o700},
    )  # fmt: skip
    job = shell("laid", "stat -c %a code empty code/run.sh; cd code && ./run.sh")
    ref = board.run(job, bundle)
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "stdout").split() == [b"750", b"700", b"755"]
    assert board.artifact(ref, "results/out") == b"7"


async def test_a_flat_layout_serves_code_written_for_one_folder(board: Board) -> None:
    """E4."""
    bundle = tar_of({"Code/go.sh": "cat iris.csv", "Data/iris.csv": "5.1\n"})
    ref = board.run(Job("flat", ("sh", "go.sh"), layout=Layout.FLAT), bundle)
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "stdout") == b"5.1\n"


async def test_a_flat_layout_refuses_a_clash_and_names_both(board: Board) -> None:
    """E4."""
    bundle = tar_of({"Code/a.txt": "1", "Data/a.txt": "2"})
    ref = board.run(Job("clash", ("true",), layout=Layout.FLAT), bundle)
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert code == "BUNDLE"
    assert "Code/a.txt" in message
    assert "Data/a.txt" in message


async def test_a_bundle_that_was_changed_never_runs(board: Board) -> None:
    ref_bundle = tar_of({"a": "1"})
    digest, _ = board.objects.add(ref_bundle)
    board.objects.objects[digest] = tar_of({"a": "2"})
    ref = board.run(shell("changed", "touch results/ran"), ref_bundle)
    board.objects.objects[digest] = tar_of({"a": "2"})
    assert await board.end(ref) is JobState.FAILED
    assert board.controller.reason(ref)[0] == "ARTIFACT_CHECKSUM"


async def test_a_flipped_byte_in_a_file_input_is_found_before_any_code_runs(board: Board) -> None:
    """E3."""
    digest = hashlib.sha256(b"model").hexdigest()
    _, url = board.objects.add(b"modem", "file")
    job = Job(
        "infer", ("sh", "-c", "touch results/ran"), files=(FileInput("m", "k", "m.bin", digest),)
    )
    ref = board.run(job, file_urls={"m": url})
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert code == "ARTIFACT_CHECKSUM"
    assert digest in message
    assert JobState.RUNNING not in board.controller.states(ref)


async def test_a_file_input_goes_on_where_the_link_broke(board: Board) -> None:
    """E3."""
    data = bytes(range(256)) * 40_000
    digest, url = board.objects.add(data, "big")
    board.objects.cut_at = len(data) // 2
    job = Job("infer", ("sha256sum", "in/big"), files=(FileInput("b", "k", "in/big", digest),))
    ref = board.run(job, file_urls={"b": url})
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "stdout").decode().split()[0] == digest
    assert board.objects.ranges
    assert board.objects.sent_bytes <= 1.1 * len(data)


async def test_a_bad_requirement_fails_with_the_installers_words(board: Board) -> None:
    """E5."""
    job = Job(
        "numbers",
        ("sh", "-c", "touch results/ran"),
        environment=Environment(steps=(RequirementsStep("requirements.txt"),)),
    )
    ref = board.run(job, tar_of({"requirements.txt": "./no-such-package-here\n"}))
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert code == "INSTALL"
    assert "no-such-package-here" in message
    assert "Using Python" not in message
    assert JobState.RUNNING not in board.controller.states(ref)


async def test_conflicting_versions_run_side_by_side_and_a_recipe_is_built_once(
    board: Board,
) -> None:
    """E5."""
    bundle: dict[str, bytes] = {}
    for version in ("1.0", "2.0"):
        name, data = wheel_of("shoalprobe", version, f"version = '{version}'\n")
        bundle[name] = data
    names = sorted(bundle)
    run = ("python", "-c", "import shoalprobe; print(shoalprobe.version)")
    refs = [
        board.run(
            Job(f"job-{number}", run, environment=Environment(steps=(WheelStep(name),))),
            tar_of(bundle),
        )
        for number, name in enumerate([*names, names[0]])
    ]
    for ref in refs:
        assert await board.end(ref) is JobState.SUCCEEDED
    said = [board.artifact(ref, "stdout").decode().strip() for ref in refs]
    assert said == ["1.0", "2.0", "1.0"]
    assert board.agent.log().count("environment built") == 2


async def test_a_package_by_address_is_checked(board: Board) -> None:
    """E5."""
    name, data = wheel_of("shoaladdress", "1.0", "answer = 42\n")
    digest, url = board.objects.add(data, name)
    run = ("python", "-c", "import shoaladdress; print(shoaladdress.answer)")
    good = board.run(Job("good", run, environment=Environment(steps=(UrlStep(url, digest),))))
    bad = board.run(Job("bad", run, environment=Environment(steps=(UrlStep(url, "0" * 64),))))
    assert await board.end(good) is JobState.SUCCEEDED
    assert await board.end(bad) is JobState.FAILED
    assert board.controller.reason(bad)[0] == "ARTIFACT_CHECKSUM"


async def test_an_interpreter_that_is_missing_is_named(board: Board) -> None:
    job = Job("old", ("true",), environment=Environment(python="/nowhere/python2.1"))
    ref = board.run(job)
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert code == "INSTALL"
    assert "/nowhere/python2.1" in message


async def test_while_the_store_is_away_a_job_is_archiving(board: Board) -> None:
    """E7."""
    board.objects.away = True
    ref = board.run(shell("patient", "echo x > results/x"))
    await board.state(ref, JobState.ARCHIVING)
    await until(lambda: board.objects.puts >= 2, 20, "a second try")
    assert board.controller.state(ref) is JobState.ARCHIVING
    board.objects.away = False
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "results/x") == b"x\n"


async def test_addresses_that_expired_are_asked_for_again(board: Board) -> None:
    board.objects.refuse_puts = 2
    ref = board.run(shell("late", "echo x > results/x"))
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "results/x") == b"x\n"


async def test_k5_links_that_lead_outside_are_named_and_the_rest_is_kept(board: Board) -> None:
    ref = board.run(
        shell("links", "echo 1 > results/a; ln -s a results/b; ln -s /etc results/etc; "
              "ln -s /etc/passwd results/p")
    )  # fmt: skip
    assert await board.end(ref) is JobState.FAILED
    code, _, words = board.controller.reason(ref)
    assert code == "ARCHIVE"
    assert "'results/etc' is a link to '/etc'" in words
    assert "'results/p' is a link to '/etc/passwd'" in words
    paths = [artifact.path for artifact in board.controller.observed[ref][-1].artifacts]
    assert paths == ["results/a", "results/b"]


@pytest.mark.parametrize("count", [40])
async def test_many_jobs_at_once_all_end(board: Board, count: int) -> None:
    refs = [board.run(shell(f"job-{number}", f"echo {number}")) for number in range(count)]
    for number, ref in enumerate(refs):
        assert await board.end(ref, 60) is JobState.SUCCEEDED
        assert board.artifact(ref, "stdout") == f"{number}\n".encode()
    await board.idle()


async def test_job_code_imports_the_job_library(board: Board) -> None:
    run = ("python", "-c", "import shoal.job; print(shoal.job.__name__)")
    ref = board.run(Job("sdk", run))
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "stdout") == b"shoal.job\n"
