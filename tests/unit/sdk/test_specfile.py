"""A specification file is read in full, and every mistake is named at once with line and remedy."""

from pathlib import Path

import pytest

from shoal import spec
from shoal.specfile.load import SpecFile, load, parse
from shoal.specfile.mark import Finding, SpecFileError

FULL = """\
name: people-counter
bundle: .
labels: {team: vision, version: 3.10}
x-common: &common
  environment: {requirements: requirements.txt}
jobs:
  camera:
    run: python camera.py --title 'two words'
    <<: *common
    inputs:
      video: {source: s3://bucket/videos/street.avi, path: data/video.avi}
    outputs: {frames: {format: bytes:4, as: stdout, distribute: broadcast}}
    resources: {cpus: 0.5, memory: 512MiB, devices: [video]}
    place: {require: {role: camera}, prefer: [node-1], strategy: pack}
    timeout: 90s
    grace: 1500ms
    placement: at_most_one_running
  detector:
    run: [python, detector.py, "{inputs.frames.fd}"]
    environment:
      python: 3.10
      system_site_packages: yes
      steps:
        - constraints: requirements.txt
        - requirements: requirements.txt
        - {url: https://example.org/a.whl, sha256: HASH}
        - wheel: lib/b.whl
        - pip: [--pre, numpy]
        - pip: --no-deps scipy
    inputs:
      frames: {from: camera.frames, format: bytes:4, as: stdin, block_count: 5, merge: ordered}
    outputs: [found]
    replicas: 2
    retry: {attempts: 3, backoff: 250ms, backoff_limit: 1m}
    recovery: resume
    variables: {KEY: value, NUMBER: 007, FLAG: true}
  counter:
    run: ./count
    inputs: {found: detector.found}
    archive: ["results/**", people.csv]
    retry: 2
    layout: tree
    stdin: lib/table.txt
""".replace("HASH", "ab" * 32)

EVERY_MISTAKE = """\
1:7: name: pipeline 'People' is not a valid id: use a lower-case letter, then up to 62 \
lower-case letters, digits or hyphens
4:10: jobs.camera.run: the bundle has no file 'camera.py'; set `bundle` to the folder it is in
5:15: jobs.camera.outputs.frames: no job reads this output; give one an input `from: \
camera.frames`, or remove it
5:23: jobs.camera.outputs.spare: no job reads this output; give one an input `from: \
camera.spare`, or remove it
6:14: jobs.camera.timeout: '90x' is not a duration; write for example 90s, 2m, 1h30m or 250ms
8:10: jobs.detector.run: no shell runs this, so the program would get '|' as a word; write [sh, \
-c, '…'] to use a shell, or a list of words if it is meant
9:22: jobs.detector.inputs.frames.from: the job 'camera' has no output 'frame'; did you mean \
'frames'?
10:15: jobs.detector.replicas: 'many' is not a whole number from 0 to 4294967295
11:5: jobs.detector.ressources: there is no 'ressources' here; did you mean 'resources'?
12:3: jobs.counter.run: there is no program; write for example: run: python main.py
14:21: jobs.counter.inputs.found.from: there is no job 'detektor'; did you mean 'detector'?
14:37: jobs.counter.inputs.found.block_cuont: there is no 'block_cuont' here; did you mean \
'block_count'?
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    for name in (
        *("camera.py", "detector.py", "count", "requirements.txt"),
        *("lib/b.whl", "lib/table.txt"),
    ):
        (tmp_path / name).touch()
    return tmp_path


def read(text: str, folder: Path = Path("/nowhere")) -> SpecFile:
    return parse(text, "test.yaml", folder)


def findings(text: str, folder: Path = Path("/nowhere")) -> tuple[Finding, ...]:
    with pytest.raises(SpecFileError) as caught:
        read(text, folder)
    return caught.value.findings


def complaint(text: str, folder: Path = Path("/nowhere")) -> str:
    (only,) = findings(text, folder)
    return str(only)


def job(rest: str) -> str:
    return f"name: p\njobs:\n  a:\n    run: x\n    {rest}\n"


def test_everything_that_can_be_said_is_read(folder: Path) -> None:
    found = read(FULL, folder)
    assert found.bundle is not None
    assert found.bundle.path.resolve() == folder.resolve()
    assert found.pipeline == spec.Pipeline(
        "people-counter",
        labels={"team": "vision", "version": "3.10"},
        jobs=(
            spec.Job(
                "camera",
                ("python", "camera.py", "--title", "two words"),
                environment=spec.Environment(steps=(spec.RequirementsStep("requirements.txt"),)),
                files=(spec.FileInput("video", "s3://bucket/videos/street.avi", "data/video.avi"),),
                outputs=(
                    spec.Output(
                        "frames",
                        spec.PortBinding(spec.PortFormat.BYTES, spec.PortAttachment.STDIO, 4),
                        spec.Distribute.BROADCAST,
                    ),
                ),
                resources=spec.Resources(0.5, 512 * 2**20, ("video",)),
                place=spec.Place({"role": "camera"}, ("node-1",), spec.Strategy.PACK),
                timeout_seconds=90,
                grace_seconds=1.5,
                placement=spec.Placement.AT_MOST_ONE_RUNNING,
            ),
            spec.Job(
                "detector",
                ("python", "detector.py", "{inputs.frames.fd}"),
                environment=spec.Environment(
                    "3.10",
                    (
                        spec.ConstraintsStep("requirements.txt"),
                        spec.RequirementsStep("requirements.txt"),
                        spec.UrlStep("https://example.org/a.whl", "ab" * 32),
                        spec.WheelStep("lib/b.whl"),
                        spec.PipStep(("--pre", "numpy")),
                        spec.PipStep(("--no-deps", "scipy")),
                    ),
                    system_site_packages=True,
                ),
                streams=(
                    spec.StreamInput(
                        "frames",
                        "camera",
                        "frames",
                        spec.PortBinding(spec.PortFormat.BYTES, spec.PortAttachment.STDIO, 4),
                        5,
                    ),
                ),
                outputs=(spec.Output("found"),),
                replicas=2,
                retry=spec.Retry(3, 0.25, 60),
                recovery=spec.Recovery.RESUME,
                variables={"KEY": "value", "NUMBER": "007", "FLAG": "true"},
            ),
            spec.Job(
                "counter",
                ("./count",),
                streams=(spec.StreamInput("found", "detector", "found"),),
                archive=("results/**", "people.csv"),
                retry=spec.Retry(2),
                stdin="lib/table.txt",
            ),
        ),
    )


def test_every_mistake_is_named_at_once_in_the_order_of_the_file() -> None:
    text = """\
name: People
jobs:
  camera:
    run: python camera.py
    outputs: [frames, spare]
    timeout: 90x
  detector:
    run: detect | tee log
    inputs: {frames: camera.frame}
    replicas: many
    ressources: {cpus: 1}
  counter:
    inputs:
      found: {from: detektor.found, block_cuont: 2}
"""
    assert [str(finding) for finding in findings(text)] == EVERY_MISTAKE.splitlines()


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("run: y", "'run' stands here twice, first in line 4"),
        ("replicas: 0", "0 is not allowed; it has to be 1 or more"),
        ("replicas: 99999", "there are 99999 jobs with their replicas"),
        ("replicas: 1.5", "'1.5' is not a whole number"),
        ("resources: {cpus: 0}", "it has to be more than 0"),
        ("resources: {cpus: .nan}", "'.nan' is not a number"),
        ("resources: {cpus: nan}", "nan is not allowed"),
        ("resources: {memory: 512MB5}", "'512MB5' is not a size"),
        ("resources: {processes: 9999999}", "it has to be 0 or more and 4194304 at most"),
        ("resources: {disk: 1Gib}", "'1Gib' is not a size"),
        ("sandbox: confine", "did you mean 'confined'?"),
        ("sandbox: [user]", "this has to be a level (none, user, confined), or a mapping"),
        ("sandbox: {level: user, network: none}", "write `sandbox: {level: confined, network"),
        ("sandbox: {enforce: [memory]}", "the job claims no memory, so nothing can bind it"),
        ("sandbox: {enforce: [ram]}", "'ram' is not possible here"),
        ("sandbox: {levl: user}", "did you mean 'level'?"),
        ("recovery: resum", "did you mean 'resume'?"),
        ("placement: [pinned]", "this has to be a single value"),
        ("outputs: {o: {format: line}}", "did you mean 'lines'?"),
        ("outputs: {o: {format: bytes}}", "write bytes:N"),
        ("outputs: {o: {format: bytes:0}}", "use 1 to 268435456 bytes"),
        ("outputs: {o: {as: stdin}}", "known are fd, fifo, stdout"),
        ("inputs: {i: {from: b.c, source: s3://b/k}}", "one of them"),
        ("inputs: {i: {source: ftp://b/k}}", "cannot be fetched"),
        ("inputs: {i: {source: s3://b}}", "write s3://bucket/key"),
        ("inputs: {i: {source: s3://b/k, merge: ordered}}", "has no 'merge'"),
        ("inputs: {i: {source: s3://b/k, path: ../x}}", "has '..' in it"),
        ("inputs: {i: {source: s3://b/k, sha256: 12}}", "'12' is not a SHA-256"),
        ("inputs: {i: camera}", "write JOB.PORT"),
        ("archive: []", "the list is empty"),
        ("archive: /etc/*", "is an absolute path"),
        ("stdin: missing.txt", "set `bundle` to the folder it is in"),
        ("variables: {SHOAL_JOB: x}", "are set by the system"),
        ("variables: {A: }", "there is no value"),
        ("environment: {requirements: r.txt, steps: []}", "cannot stand beside `steps`"),
        ("environment: {steps: [{wheel: a, pip: b}]}", "a step has one of"),
        ("environment: {url: file:///x}", "is not an http:// or https:// address"),
        ("environment: {sha256: x}", "it belongs to a `url`"),
        (
            "environment: {pip: [-i, 'https://u:p@h/simple', six]}",
            "'https://u:***@h/simple' has a password",
        ),
        ("environment: {pip: ['git+https://ghp_x@h/six']}", "--index-credentials"),
        ("grace: 0", "it has to be more than 0"),
        ("run: 'a \"b'", "No closing quotation"),
        ("!!python/object:os.system {}", "is not allowed; write plain values"),
    ],
)
def test_a_mistake_in_a_job_is_named(rest: str, said: str) -> None:
    text = job(rest).replace("    run: x\n", "") if rest.startswith("run: '") else job(rest)
    if rest.startswith("!!"):
        text = f"name: p\njobs:\n  a: {rest}\n"
    assert said in "\n".join(str(finding) for finding in findings(text))


def test_a_bundle_is_prefetched_if_there_is_one(folder: Path) -> None:
    assert read(job("") + "bundle: .\nprefetch: true\n", folder).pipeline.prefetch
    assert not read(job("") + "bundle: .\nprefetch: false\n", folder).pipeline.prefetch
    assert not read(job("")).pipeline.prefetch
    assert "add `bundle: .`" in complaint(job("") + "prefetch: yes\n")
    assert "prefetch" in complaint(job("") + "bundle: .\nprefetch: often\n", folder)


def pipeline(producer: str, consumer: str, more: str = "") -> str:
    return (
        f"name: p\njobs:\n  a:\n    run: x\n    outputs: {{o: {producer}}}\n"
        f"  b:\n    run: y\n    inputs: {{i: {consumer}}}\n{more}"
    )


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("u32", "lines"), ("lines", "jsonl"), ("bytes:4", "bytes:8"), ("bytes:4", "u32")],
)
def test_different_raw_formats_do_not_meet(written: str, read_as: str) -> None:
    text = pipeline(f"{{format: {written}}}", f"{{from: a.o, format: {read_as}}}")
    assert complaint(text) == (
        f"8:37: jobs.b.inputs.i.format: a.o writes {written} and this input reads {read_as}; "
        "use one format at both ends, or blocks at one of them"
    )


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("u32", "blocks"), ("blocks", "jsonl"), ("bytes:4", "bytes:4"), ("blocks", "blocks")],
)
def test_blocks_meet_every_format(written: str, read_as: str) -> None:
    read(pipeline(f"{{format: {written}}}", f"{{from: a.o, format: {read_as}}}"))


def test_two_ports_on_one_descriptor_are_refused() -> None:
    text = """\
name: p
jobs:
  a:
    run: x
    outputs:
      o: {as: stdout}
      p: {as: stdout}
  b:
    run: y
    inputs:
      i: {from: a.o, as: stdin}
      j: {from: a.p, as: stdin}
"""
    assert [(finding.mark.line, finding.path) for finding in findings(text)] == [
        (7, ("jobs", "a", "outputs", "p", "as")),
        (12, ("jobs", "b", "inputs", "j", "as")),
    ]


def test_a_cycle_is_named_in_full() -> None:
    text = """\
name: p
jobs:
  a: {run: x, inputs: {i: c.o}, outputs: [o]}
  b: {run: x, inputs: {i: a.o}, outputs: [o]}
  c: {run: x, inputs: {i: b.o}, outputs: [o]}
"""
    assert "the jobs wait for each other: a → b → c → a" in complaint(text)


def test_a_job_that_reads_itself_is_a_cycle() -> None:
    text = "name: p\njobs:\n  a: {run: x, inputs: {i: a.o}, outputs: [o]}\n"
    assert "a → a" in complaint(text)


def test_replicas_take_no_name_of_another_job() -> None:
    text = "name: p\njobs:\n  a: {run: x, replicas: 2}\n  a-1: {run: x}\n"
    assert complaint(text).startswith("4:3: jobs.a-1: its replica 'a-1' has the name")


def test_no_job_has_the_name_of_the_other_end_of_local_jobs() -> None:
    """Its lanes would be taken for those of a client, who may say that it is done."""
    text = "name: p\njobs:\n  client: {run: x}\n"
    assert complaint(text).startswith("3:3: jobs.client: 'client' is the other end")


def test_a_resuming_job_needs_rounds() -> None:
    text = pipeline("{}", "{from: a.o, merge: arrival}", "    recovery: resume\n")
    assert "use `merge: ordered` or `recovery: restart`" in complaint(text)


def test_ordered_merge_of_replicas_is_fine() -> None:
    read(
        "name: p\njobs:\n  a: {run: x, outputs: [o], replicas: 3}\n"
        "  b: {run: y, inputs: {i: {from: a.o, merge: ordered}}, replicas: 2}\n"
    )


def test_stdin_is_a_port_or_a_file(folder: Path) -> None:
    text = pipeline("{}", "{from: a.o, as: stdin}", "    stdin: camera.py\nbundle: .\n")
    assert "leave `stdin` out" in complaint(text, folder)


def test_a_placeholder_names_a_port() -> None:
    text = pipeline("{}", "{from: a.o}").replace("run: y", "run: y {inputs.ii.fd}")
    assert "did you mean 'i'?" in complaint(text)


def test_every_mistake_of_the_wiring_is_found_at_once_with_its_line() -> None:
    """Case F8."""
    text = (
        "name: wrong\n"
        "jobs:\n"
        "  a:\n"
        "    run: x {inputs.nope.fd}\n"
        "    inputs: {i: c.o}\n"
        "    outputs: [o, unread]\n"
        "  b:\n"
        "    run: y\n"
        "    inputs: {i: a.nothing, j: {from: a.o}, j: {from: c.o}}\n"
        "    outputs: {o: {format: u32}}\n"
        "  c:\n"
        "    run: z\n"
        "    inputs: {i: {from: b.o, format: lines}, k: d.o}\n"
        "    outputs: [o]\n"
        "  c:\n"
        "    run: z\n"
    )
    said = [
        (found.mark.line, str(found).partition(": ")[2].split("; ")[0]) for found in findings(text)
    ]
    assert said == [
        (4, "jobs.a.run: {inputs.nope.fd} names no port of the job's inputs"),
        (5, "jobs.a.inputs.i.from: the jobs wait for each other: a → b → c → a"),
        (6, "jobs.a.outputs.unread: no job reads this output"),
        (9, "jobs.b.inputs.i.from: the job 'a' has no output 'nothing'"),
        (9, "jobs.b.inputs.j: 'j' stands here twice, first in line 9"),
        (13, "jobs.c.inputs.i.format: b.o writes u32 and this input reads lines"),
        (13, "jobs.c.inputs.k.from: there is no job 'd'"),
        (15, "jobs.c: 'c' stands here twice, first in line 11"),
    ]


@pytest.mark.parametrize(
    ("port", "mark", "said"),
    [
        ("format: lines, as: fifo", "fd", "the port is a FIFO; write {inputs.i.path}"),
        ("format: lines", "path", "the port is no FIFO; write {inputs.i.fd}"),
        ("as: fifo", "path", "a FIFO carries plain bytes in one; give the port a format"),
    ],
)
def test_a_fifo_has_a_path_and_a_format(port: str, mark: str, said: str) -> None:
    """Case F6."""
    text = pipeline("{}", f"{{from: a.o, {port}}}").replace("run: y", f"run: y {{inputs.i.{mark}}}")
    assert said in complaint(text)


def test_files_of_the_environment_are_in_the_bundle(folder: Path) -> None:
    text = job("environment: {requirements: requirement.txt}") + "bundle: .\n"
    assert complaint(text, folder) == (
        "5:33: jobs.a.environment.steps.0.requirements: the bundle has no file "
        "'requirement.txt'; did you mean 'requirements.txt'?"
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("{pip: -rdev.txt}", ""),
        ("{pip: --no-deps}", "steps.0: it installs nothing by itself and no step comes after it"),
        ("{pip: [--dry-run, six]}", "steps.0: with --dry-run nothing would be installed"),
        ("{requirements: deep/dev.txt}", ""),
        ("{requirements: out.txt}", "steps.0: the recipe names '../x.txt', which is not a file"),
        ("{requirements: secret.txt}", "steps.0: the recipe names 'hidden.txt', which is not"),
        ("{pip: --requirement=deep/dev.txt}", ""),
        ("{pip: [-r, 'deep/../base.txt']}", ""),
        ("{pip: -rno.txt}", "steps.0: the recipe names 'no.txt', which is not a file"),
    ],
)
def test_k2_k4_what_the_installer_reads_is_looked_for(
    tmp_path: Path, environment: str, said: str
) -> None:
    (tmp_path / "deep").mkdir()
    for name, line in (
        ("deep/dev.txt", "-r ../base.txt"), ("base.txt", "six"), ("out.txt", "-r ../x.txt"),
        ("secret.txt", "-r hidden.txt"), ("hidden.txt", "six"), ("dev.txt", "six"),
    ):  # fmt: skip
        (tmp_path / name).write_text(line + "\n")
    text = job(f"environment: {environment}") + "bundle: {path: ., exclude: [hidden.txt]}\n"
    if said:
        assert said in complaint(text, tmp_path)
    else:
        read(text, tmp_path)


def test_k4_in_a_flat_layout_files_are_called_by_their_bare_names(folder: Path) -> None:
    """As the agent finds them."""
    flat = "layout: flat\n    environment: {requirements: %s}"
    text = job(flat % "lib/b.whl") + "bundle: .\n"
    assert "the bundle has no file 'lib/b.whl'" in complaint(text, folder)
    read(job(flat % "b.whl") + "bundle: .\n", folder)


def test_an_excluded_file_is_not_in_the_bundle(folder: Path) -> None:
    text = job("stdin: lib/table.txt") + "bundle: {path: ., exclude: [lib/]}\n"
    assert "the bundle has no file 'lib/table.txt'" in complaint(text, folder)


def test_a_flat_folder_has_each_name_once(folder: Path) -> None:
    (folder / "camera.py").rename(folder / "lib/camera.py")
    (folder / "camera.py").touch()
    text = job("layout: flat") + "bundle: .\n"
    assert "camera.py and lib/camera.py would be one file" in complaint(text, folder)


def test_a_bundle_that_is_not_there_is_named(folder: Path) -> None:
    found = complaint("name: p\nbundle: gone\njobs:\n  a: {run: x, stdin: f}\n", folder)
    assert found.startswith("2:9: bundle: ")
    assert "is not a folder" in found


def test_what_follows_from_another_mistake_is_not_said() -> None:
    text = "name: p\njobs:\n  a: 5\n  b: {run: x, inputs: {i: a.o}, outputs: [o]}\n"
    assert complaint(text) == "3:6: jobs.a: this has to be a mapping with `run` at least"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: the file is empty"),
        ("- a", "1:1: this has to be a mapping with `name` and `jobs`"),
        ("name: p", "1:1: jobs: there are none"),
        ("jobs: {a: {run: x}}", "1:1: name: the pipeline has no name"),
        ("name: p\njobs: {", "this is not YAML"),
        ("name: p\njobs: {a: {run: x}}\n---\nname: q", "expected a single document"),
        ("name: \x01", "1:7: the character"),
        ("a: " + "[" * 5000, "nested deeper than 32 levels"),
        ("a: &a [*a]", "contains itself"),
        ("x: " + " " * 600_000, "the file has 600003 characters"),
        ("a: !!python/name:os.system ''", "is not allowed; write plain values"),
        ("? [a, b]\n: c", "a key has to be a word"),
    ],
)
def test_what_is_no_specification_is_refused(text: str, said: str) -> None:
    assert said in "\n".join(str(finding) for finding in findings(text))


def test_aliases_do_not_grow_without_end() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [" + ", ".join([f"*l{n - 1}"] * 9) + "]" for n in range(1, 12)]
    assert "its aliases grow to more than" in complaint("\n".join(lines))


def test_a_file_is_read_from_disk(folder: Path) -> None:
    path = folder / "pipeline.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + FULL.encode())
    assert load(path).pipeline.name == "people-counter"
    path.write_bytes(b"name: p\nlabels: {a: \xff}\n")
    with pytest.raises(SpecFileError, match=r"pipeline.yaml:2:13: the byte 0xff is not UTF-8"):
        load(path)
    with pytest.raises(SpecFileError, match=r"there is no such file; known are pipeline\.yaml"):
        load(folder / "gone.yaml")


ONE_JOB = "name: p\njobs:\n  a:\n    run: "


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (
            "|\n      python -m a --title 'two\n      lines'\n",
            ("python", "-m", "a", "--title", "two\nlines"),
        ),
        ('|\n      sh -c "first\n      second"\n', ("sh", "-c", "first\nsecond")),
        ("|\n      python -m a \\\n        --fast\n", ("python", "-m", "a", "--fast")),
        ("|\n      only one line\n\n", ("only", "one", "line")),
        (">\n      folded\n      lines\n", ("folded", "lines")),
    ],
)
def test_k14_a_command_may_go_on_in_the_next_line(run: str, words: tuple[str, ...]) -> None:
    assert read(ONE_JOB + run).pipeline.jobs[0].run == words


def test_k14_a_script_of_several_lines_is_refused_with_the_remedy() -> None:
    said = complaint(ONE_JOB + "|\n      python first.py\n      python second.py\n")
    assert "has 2 lines, and no shell runs it" in said
    assert "run: [sh, -ec, TEXT]" in said


def test_k7_a_job_has_so_many_ports_and_no_more() -> None:
    """The kernel passes 253 descriptors at once, and the job would fail with STREAM."""
    outputs = ", ".join(f"o{k}" for k in range(254))
    inputs = ", ".join(f"i{k}: a.o{k}" for k in range(254))
    text = (
        "name: p\njobs:\n"
        f"  a: {{run: x, outputs: [{outputs}]}}\n  b: {{run: x, inputs: {{{inputs}}}}}\n"
    )
    said = [finding.message for finding in findings(text)]
    assert len(said) == 2
    assert all("at most 200 ports, and this one has 254" in message for message in said)


def test_k7_a_command_that_no_packet_holds_is_refused() -> None:
    said = complaint(ONE_JOB + "x\n    variables: {TEXT: " + "y" * 60_000 + "}\n")
    assert "60021 bytes, 49152 at most; put the text into a file of the bundle" in said


def test_x3_one_local_job_reads_the_terminal() -> None:
    text = """\
name: p
jobs:
  a: {local: true, run: cat, stdin: terminal, outputs: {l: {format: lines, as: stdout}}}
  b: {local: true, run: cat, stdin: terminal, outputs: {l: {format: lines, as: stdout}}}
  c: {run: cat, stdin: terminal, inputs: {a: a.l, b: b.l}}
"""
    said = [finding.message for finding in findings(text)]
    assert said[0].startswith("the job 'a' reads the terminal already")
    assert said[1].startswith("the bundle has no file 'terminal'")
    assert len(said) == 2


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("'echo a; false'", "has two commands, and no shell runs it"),
        ("cat <<E", "the program would get '<<E' as a word"),
    ],
)
def test_k14_what_only_a_shell_understands_is_refused(run: str, said: str) -> None:
    assert said in complaint(ONE_JOB + run + "\n")


def test_k14_what_is_in_quotes_is_the_programs() -> None:
    words = read(ONE_JOB + """sh -c 'echo a; false' "b; c" x;y\n""").pipeline.jobs[0].run
    assert words == ("sh", "-c", "echo a; false", "b; c", "x;y")


def test_a_wheel_of_a_bucket_is_a_file_input() -> None:
    wheels = "[s3://b/x/a-1-py3-none-any.whl, s3://b/c-2-py3-none-any.whl]"
    text = job(f"inputs: {{wheel-1: {{source: s3://b/k}}}}\n    environment: {{wheel: {wheels}}}")
    [found] = read(text).pipeline.jobs
    assert [(one.name, one.source, one.path) for one in found.files[1:]] == [
        ("wheel-2", "s3://b/x/a-1-py3-none-any.whl", "wheels/a-1-py3-none-any.whl"),
        ("wheel-3", "s3://b/c-2-py3-none-any.whl", "wheels/c-2-py3-none-any.whl"),
    ]
    assert found.environment.steps == (
        spec.WheelStep("wheels/a-1-py3-none-any.whl"),
        spec.WheelStep("wheels/c-2-py3-none-any.whl"),
    )
