"""Parameters of a specification: declared, given, typed, and put in where a value stands."""

from pathlib import Path

import pytest

from shoal import spec
from shoal.check import check_pipeline
from shoal.parameter import ParameterValue, value_text
from shoal.specfile.load import SpecFile, load, parse
from shoal.specfile.mark import SpecFileError
from shoal.specfile.values import GivenValue
from shoal.specfile.values_file import load_values
from shoal.v1 import spec_pb2
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_pipeline_spec, encode_pipeline_spec
from tests.kit.tree import ROOT

STREET = """\
name: count-${{ parameters.scene }}
parameters:
  scene: {choices: [street, square], default: street, description: which camera}
  limit: {type: integer, default: 20}
  rate: {type: number, default: 0.5}
  fast: {type: boolean, default: no}
  title: {default: ""}
labels: {scene: "${{ parameters.scene }}"}
jobs:
  source:
    run: python -m source --title '${{ parameters.title }}' -n ${{ parameters.limit }}
    replicas: ${{parameters.limit}}
    resources: {cpus: "${{ parameters.rate }}"}
    timeout: ${{ parameters.limit }}s
    outputs: {frames: {}}
  speed:
    run: [python, -m, speed, "${{ parameters.title }}"]
    outputs: [speeds]
  sink:
    run: [sh, -c, 'head -n ${{ parameters.limit }}; echo "$1"', sh, "${{ parameters.title }}"]
    inputs:
      frames: {from: source.frames, merge: arrival}
      speeds:
        from: speed.speeds
        optional: ${{ parameters.fast }}
        default: {limit: "${{ parameters.limit }}", text: "at ${{ parameters.rate }}"}
    variables: {FAST: "${{ parameters.fast }}", BOTH: "${{ parameters.scene }}-${{ parameters.limit }}"}
"""


def read(text: str, values: dict[str, ParameterValue] | None = None) -> SpecFile:
    return parse(text, "test.yaml", Path("/nowhere"), values or {})


def complaints(text: str, values: dict[str, ParameterValue] | None = None) -> list[str]:
    with pytest.raises(SpecFileError) as caught:
        read(text, values)
    return [str(finding) for finding in caught.value.findings]


def one(declaration: str, value: str = "${{ parameters.p }}") -> str:
    return f"name: a\nparameters:\n  p: {declaration}\njobs:\n  a:\n    run: [x, '{value}']\n"


def word(declaration: str, given: ParameterValue) -> str:
    return read(one(declaration), {"p": given}).pipeline.jobs[0].run[1]


def test_values_are_put_in_with_their_types() -> None:
    given: dict[str, ParameterValue] = {"limit": "3", "fast": "true", "title": "it's | two; words"}
    found = read(STREET, given).pipeline
    source, speed, sink = found.jobs
    assert found.name == "count-street"
    assert found.labels == {"scene": "street"}
    assert source.run == ("python", "-m", "source", "--title", "it's | two; words", "-n", "3")
    assert (source.replicas, source.resources.cpus, source.timeout_seconds) == (3, 0.5, 3.0)
    assert speed.run == ("python", "-m", "speed", "it's | two; words")
    assert sink.run == ("sh", "-c", 'head -n 3; echo "$1"', "sh", "it's | two; words")
    assert sink.streams[1].optional == spec.StandIn('{"limit": 3, "text": "at 0.5"}')
    assert sink.variables == {"FAST": "true", "BOTH": "street-3"}
    values = {"scene": "street", "limit": 3, "rate": 0.5, "fast": True}
    assert found.parameters == {**values, "title": "it's | two; words"}
    assert list(found.parameters) == ["scene", "limit", "rate", "fast", "title"]


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    said = (ROOT / "docs/spec.md").read_text().partition("### Parameters")[2]
    text = said.partition("```yaml\n")[2].partition("```")[0]
    for name in ("camera.py", "detector.py"):
        (tmp_path / name).touch()
    given = {"limit": "5", "title": "Saturday, 9 o'clock"}
    found = parse(text, "test.yaml", tmp_path, given).pipeline
    assert found.jobs[0].run[2:] == ("--limit", "5", "Saturday, 9 o'clock")
    assert found.jobs[1].replicas == 5


def test_a_file_without_values_has_its_defaults() -> None:
    with pytest.raises(SpecFileError, match="'default' belongs to an optional input"):
        read(STREET)
    found = read(STREET.replace("default: no", "default: yes"))
    assert [one.name for one in found.parameters] == ["scene", "limit", "rate", "fast", "title"]
    assert found.pipeline.parameters["fast"] is True
    assert found.pipeline.jobs[0].run[4] == ""


@pytest.mark.parametrize(
    ("declaration", "given", "text"),
    [
        ("{}", "", ""),
        ("{}", "3.10", "3.10"),
        ("{}", "${{ parameters.p }}", "${{ parameters.p }}"),
        ("{default: 3.10}", "x y", "x y"),
        ("{type: integer}", "-7", "-7"),
        ("{type: integer}", 9_000_000_000, "9000000000"),
        ("{type: number}", "3", "3"),
        ("{type: number}", "3.10", "3.1"),
        ("{type: number}", "1e-7", "1e-07"),
        ("{type: number}", 2.5, "2.5"),
        ("{type: boolean}", "Yes", "true"),
        ("{type: boolean}", False, "false"),
        ("{type: integer, choices: [1, 2]}", "2", "2"),
    ],
)
def test_each_type_has_one_text(declaration: str, given: ParameterValue, text: str) -> None:
    assert word(declaration, given) == text


@pytest.mark.parametrize(
    ("declaration", "given", "said"),
    [
        ("{}", 3, "3 is not a text; put it in quotes"),
        ("{}", "a\0b", "holds a NUL character, which no program can be given; remove it"),
        ("{}", "\udcff", "is not UTF-8; write it as UTF-8"),
        ("{}", "x" * 4097, "has 4097 characters, 4096 at most; put a long text into a file"),
        ("{type: integer}", "3.0", "'3.0' is not a whole number; write for example 20"),
        ("{type: integer}", "٣", "is not a whole number"),
        ("{type: integer}", "007", "is not a whole number"),
        ("{type: integer}", True, "true is not a whole number"),
        ("{type: integer}", "9999999999999999999", "is not from -9223372036854775807 to"),
        ("{type: number}", "nan", "'nan' is not a number; write for example 20, 0.5 or 1e-3"),
        ("{type: number}", "1e999", "is not a finite number; write for example 0.5"),
        ("{type: boolean}", "maybe", "'maybe' is not true or false"),
        ("{choices: [small, large]}", "larg", "is none of its choices; did you mean 'large'?"),
        ("{type: integer, choices: [1, 2]}", "3", "is none of its choices; known are 1, 2"),
    ],
)
def test_a_value_of_another_type_is_refused(
    declaration: str, given: ParameterValue, said: str
) -> None:
    (complaint,) = complaints(one(declaration), {"p": given})
    assert complaint.startswith("3:3: parameters.p: ")
    assert said in complaint


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ("20", "parameters.p: '20' is no declaration; write for example {default: 20}"),
        ("[a]", "this has to be a mapping such as {type: integer, default: 20}"),
        ("{typ: integer}", "there is no 'typ' here; did you mean 'type'?"),
        ("{type: int}", "'int' is not possible here; did you mean"),
        ("{type: integer, default: x}", "parameters.p.default: 'x' is not a whole number"),
        ("{default: }", "parameters.p.default: there is no value; give one, or '' for"),
        ("{choices: []}", "parameters.p.choices: the list is empty; name the values"),
        ("{type: integer, choices: [1, b]}", "parameters.p.choices: 'b' is not a whole number"),
        ("{choices: [a, b], default: c}", "parameters.p.default: 'c' is none of its choices"),
        ("{default: '${{ parameters.p }}'}", "holds another parameter; write a plain value"),
    ],
)
def test_a_declaration_is_checked(declaration: str, said: str) -> None:
    (complaint,) = complaints(one(declaration))
    assert complaint.startswith("3:")
    assert said in complaint


def test_a_parameter_without_a_value_is_said_once() -> None:
    declared = one("{description: which street}").replace(
        "run:", "replicas: ${{ parameters.p }}\n    run:"
    )
    (complaint,) = complaints(declared)
    assert complaint == (
        "3:3: parameters.p: it has no value (which street); give one with --set p=VALUE or in a "
        "file for --values, or write a default"
    )


def test_names_that_are_not_declared() -> None:
    assert complaints(one("{default: x}"), {"q": 1, "pp": 2}) == [
        "2:1: parameters.q: the file declares no parameter 'q'; known are p",
        "2:1: parameters.pp: the file declares no parameter 'pp'; did you mean 'p'?",
    ]
    none = "name: a\njobs:\n  a: {run: x}\n"
    with pytest.raises(SpecFileError) as caught:
        parse(none, "test.yaml", Path("/nowhere"), {"limit": GivenValue("3", "--set")})
    assert str(caught.value) == (
        "test.yaml:1:1: parameters.limit: the file declares no parameter 'limit', which --set "
        "gives; declare it under `parameters:`, or leave it out"
    )
    (complaint,) = complaints(none.replace("x}", '"${{ parameters.limt }}"}'))
    assert complaint == (
        "3:12: jobs.a.run: there is no parameter 'limt'; declare it at the top, as in: "
        "parameters: {limt: {type: string}}"
    )
    (complaint,) = complaints(one("{default: x}", "${{ parameters.pq }} ${{ parameters.p }}"))
    assert complaint == "6:10: jobs.a.run: there is no parameter 'pq'; did you mean 'p'?"


def test_a_parameter_that_nothing_names() -> None:
    (complaint,) = complaints(one("{default: x}", "y"))
    assert complaint == (
        "3:3: parameters.p: no value of the file names it; write ${{ parameters.p }} where it "
        "belongs, or remove it"
    )


def test_a_name_of_a_parameter_is_a_word() -> None:
    said = complaints(one("{default: x}").replace("  p: ", "  a b: "))
    assert said[0].startswith(
        "3:3: parameters.a b: 'a b' is not a name of a parameter; use a letter"
    )


@pytest.mark.parametrize(
    "text", ["${{ env.HOME }}", "${{ parameters.p", "${{ parameters.p.q }}", "${{}}", "${{ }} }}"]
)
def test_what_begins_a_parameter_and_is_none_is_refused(text: str) -> None:
    (complaint,) = complaints(one("{default: x}", text))
    assert "which is no parameter; write ${{ parameters.NAME }}, or $${{ for the text" in complaint


def test_dollars_are_doubled_for_the_text_itself() -> None:
    found = read(one("{default: x}", "$${{ parameters.p }} ${{ parameters.p }} ${p} {{ p }}"))
    assert found.pipeline.jobs[0].run[1] == "${{ parameters.p }} x ${p} {{ p }}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jobs:\n  a:", "jobs:\n  '${{ parameters.p }}':"),
        ("    run:", "    variables: {'${{ parameters.p }}': x}\n    run:"),
        ("    run:", "    outputs: ['${{ parameters.p }}']\n    run:"),
        ("    run:", "    outputs: {'${{ parameters.p }}': {}}\n    run:"),
        ("    run:", "    '${{ parameters.p }}': 3\n    run:"),
        ("name: a", "name: a\nlabels: {'${{ parameters.p }}': x}"),
        ("name: a", "name: a\n'x-${{ parameters.p }}': x"),
    ],
)
def test_a_key_holds_no_parameter(old: str, new: str) -> None:
    said = complaints(one("{default: x}").replace(old, new))
    assert len(said) == 1
    assert "no parameter can stand in a key; write the key itself" in said[0]


def test_the_keys_of_a_default_hold_no_parameter() -> None:
    text = STREET.replace("{limit: ", "{'${{ parameters.title }}': ")
    assert "no parameter can stand in a key" in str(complaints(text, {"fast": True}))


@pytest.mark.parametrize(
    "run",
    [
        "sh -c 'ls ${{ parameters.p }}'",
        "[sh, -c, '${{ parameters.p }}']",
        "[/bin/bash, -euo, pipefail, -c, 'ls \"${{ parameters.p }}\"']",
        "[env, A=1, dash, -ec, 'ls ${{ parameters.p }}']",
        "[python3.11, -c, 'print(${{ parameters.p }})']",
        "[ssh, board, ls, '${{ parameters.p }}']",
        "awk '/${{ parameters.p }}/' data",
        "'${{ parameters.p }} -c ${{ parameters.p }}'",
    ],
)
def test_a_text_is_no_part_of_a_program(run: str) -> None:
    text = f"name: a\nparameters: {{p: {{default: sh}}}}\njobs:\n  a:\n    run: {run}\n"
    (complaint,) = complaints(text)
    assert complaint.startswith(
        "5:10: jobs.a.run: the text of the parameter 'p' would be a part of"
    )
    assert 'sh, "${{ parameters.p }}"]' in complaint
    assert "variables" in complaint
    number = text.replace("{default: sh}", "{type: integer, default: 3}")
    assert read(number).pipeline.jobs[0].run


@pytest.mark.parametrize(
    ("run", "value"),
    [
        ("python ${{ parameters.p }}", "-cimport os"),
        ("sed -n p ${{ parameters.p }}", "-e1e reboot"),
        ("perl ${{ parameters.p }} file", "-esystem 'reboot'"),
    ],
)
def test_a_text_is_no_option_that_brings_a_program(run: str, value: str) -> None:
    text = f"name: a\nparameters: {{p: {{}}}}\njobs:\n  a:\n    run: {run}\n"
    assert read(text, {"p": "a.txt"}).pipeline.jobs[0].run[-1] in {"a.txt", "file"}
    (complaint,) = complaints(text, {"p": value})
    assert "would be a part of the program" in complaint


def test_a_text_is_no_place_of_a_port() -> None:
    (complaint,) = complaints(one("{}"), {"p": "{inputs.frames.fd}"})
    assert "names the place of a port, which would be replaced by a number" in complaint


def test_words_of_a_value_are_no_words_of_a_shell() -> None:
    declared = one("{}").replace("[x, '${{ parameters.p }}']", "cut -d ${{ parameters.p }} data")
    assert read(declared, {"p": "|"}).pipeline.jobs[0].run == ("cut", "-d", "|", "data")
    piped = declared.replace("data", "data | wc")
    assert "would get '|' as a word" in str(complaints(piped, {"p": ","}))


def test_a_mistake_names_the_value_that_was_put_in() -> None:
    (complaint,) = complaints(STREET, {"limit": 0, "fast": True})
    assert complaint == (
        "12:15: jobs.source.replicas: 0 is not allowed; it has to be 1 or more "
        "(the parameter limit is 0)"
    )


def test_a_mistake_beside_a_value_does_not_name_it() -> None:
    (complaint,) = complaints(one("{default: y}").replace("[x", "[python, nope.py"))
    assert "the bundle has no file 'nope.py'" in complaint
    assert "the parameter" not in complaint


def test_a_parameter_in_a_list_stands_in_quotes() -> None:
    (complaint,) = complaints(one("{default: x}").replace("'", ""))
    assert complaint.startswith("6:")
    assert "put ${{ … }} in quotes where it stands within [] or {}" in complaint


def test_steps_of_an_environment_and_packages() -> None:
    text = (
        "name: a\nparameters: {version: {default: '2.1'}}\njobs:\n  a:\n    run: x\n    environment:\n"
        "      pip: --no-deps 'numpy==${{ parameters.version }}'\n"
    )
    (step,) = read(text, {"version": "2; --pre x"}).pipeline.jobs[0].environment.steps
    assert step == spec.PipStep(("--no-deps", "numpy==2; --pre x"))


def test_files_of_values_yaml_and_toml(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("\ufeffscene: square\nlimit: 3\nrate: 1.50\ntitle: 3.10\n")
    (tmp_path / "v.toml").write_text(
        'scene = "square"\nlimit = 3\nrate = 1.5\ntitle = "3.10"\nfast = true\n'
    )
    (tmp_path / "p.yaml").write_text(STREET.replace("default: no", "default: yes"))
    found = [
        load(tmp_path / "p.yaml", load_values(tmp_path / f"v.{kind}")) for kind in ("yaml", "toml")
    ]
    assert found[0].pipeline == found[1].pipeline
    assert found[0].pipeline.parameters["title"] == "3.10"
    assert load_values(tmp_path / "v.yaml")["limit"] == GivenValue("3", f"{tmp_path}/v.yaml:2:8")
    assert load_values(tmp_path / "v.toml")["limit"] == GivenValue(3, f"{tmp_path}/v.toml:2:1")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("v.json", "{}", "1:1: a file of values is called *.yaml, *.yml, *.toml; rename it"),
        ("v.yaml", "- a\n", "1:1: this has to be a mapping from names of parameters to values"),
        ("v.yaml", "a: 1\nb: [2]\n", "2:4: b: this has to be a single value"),
        ("v.yaml", "a:\n", "1:3: a: there is no value; give one, or '' for an empty text"),
        ("v.yaml", "a: 1\na: 2\n", "2:1: a: 'a' stands here twice, first in line 1; remove one"),
        ("v.yaml", "a: [\n", "this is not YAML"),
        ("v.yaml", "", "1:1: the file is empty"),
        ("v.toml", "a = \n", "1:5: this is not TOML: Invalid value"),
        ("v.toml", "b = 1\n[a]\nc = 1\n", "2:1: a: this has to be a single value"),
        ("v.toml", "a = 2026-11-29\n", "1:1: a: this has to be a single value"),
        ("gone.yaml", None, "1:1: there is no such file; "),
    ],
)
def test_a_file_of_values_is_checked(
    tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SpecFileError) as caught:
        load_values(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}:")
    assert said in str(caught.value)


def test_a_pipeline_that_was_made_in_python_keeps_to_the_same_limits() -> None:
    job = spec.Job("a", ("x",))
    good = spec.Pipeline("p", (job,), parameters={"n": 3, "t": "x", "f": 1.5, "b": True})
    decoded = decode_pipeline_spec(encode_pipeline_spec(good))
    assert decoded == good
    assert [type(value) for value in decoded.parameters.values()] == [int, str, float, bool]
    bad = spec.Pipeline("p", (job,), parameters={"a b": 3, "n": float("inf"), "i": 2**63})
    assert [".".join(problem.path) for problem in check_pipeline(bad)] == [
        "parameters.a b",
        "parameters.n",
        "parameters.i",
    ]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ([spec_pb2.Parameter(name="a b", text="x")], "parameters[0].name: 'a b' is not a name"),
        ([spec_pb2.Parameter(name="a")], "parameters[0]: 'a' has no value"),
        ([spec_pb2.Parameter(name="a", number=float("nan"))], "is not a finite number"),
        ([spec_pb2.Parameter(name="a", text="\0")], "holds a NUL character"),
        ([spec_pb2.Parameter(name="a", text="x")] * 2, "'a' stands there twice"),
        (
            [spec_pb2.Parameter(name=f"a{n}", text="x") for n in range(257)],
            "there are 257, 256 at most",
        ),
    ],
)
def test_the_contract_refuses_what_is_no_parameter(
    parameters: list[spec_pb2.Parameter], said: str
) -> None:
    with pytest.raises(WireError) as caught:
        decode_pipeline_spec(spec_pb2.PipelineSpec(name="p", parameters=parameters))
    assert said in str(caught.value)


def test_numbers_are_written_as_json_writes_them() -> None:
    assert [value_text(one) for one in (True, 3, 3.0, 1e16, -0.5, "x")] == [
        "true", "3", "3.0", "1e+16", "-0.5", "x",
    ]  # fmt: skip


def test_a_parameter_that_is_empty_asks_for_no_label_and_no_device() -> None:
    """Cases E1 and E14: one template binds to a node and wants a camera, or neither."""
    text = """\
name: p
parameters: {node: {default: ""}, device: {default: ""}}
jobs:
  a:
    run: "true"
    place: {require: {node: "${{ parameters.node }}", role: x, none: ""}}
    resources: {devices: [gpu, "${{ parameters.device }}"]}
"""
    [free] = read(text).pipeline.jobs
    assert dict(free.place.require) == {"role": "x", "none": ""}
    assert free.resources.devices == ("gpu",)
    [bound] = read(text, {"node": "n2", "device": "video"}).pipeline.jobs
    assert dict(bound.place.require) == {"node": "n2", "role": "x", "none": ""}
    assert bound.resources.devices == ("gpu", "video")
