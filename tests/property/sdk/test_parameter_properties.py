"""Whatever the value of a parameter, words, keys and jobs stay those of the file."""

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import limits
from shoal.cli.document import to_document
from shoal.parameter import ParameterValue
from shoal.specfile.load import SpecFile, parse
from shoal.specfile.mark import SpecFileError
from shoal.specfile.template import parse_template, split_template
from shoal.specfile.values_file import load_values
from shoal.specfile.words import split_words

EVERYWHERE = """\
parameters: {p: {}, n: {type: integer, default: 2}}
name: everywhere
labels: {a: "${{ parameters.p }}", b: "x ${{ parameters.p }}"}
jobs:
  a:
    run: prog "x ${{ parameters.p }} y" '${{ parameters.p }}' ${{ parameters.p }} \\${{ parameters.p }}z
    environment: {steps: [{pip: "-q ${{ parameters.p }}"}, {pip: ["${{ parameters.p }}"]}]}
    place: {require: {a: "${{ parameters.p }}"}, prefer: ["${{ parameters.p }}"]}
    resources: {devices: ["${{ parameters.p }}"]}
    variables: {A: "${{ parameters.p }}", B: "${{ parameters.p }}=${{ parameters.n }}"}
    outputs: [o]
  b:
    run: [sh, -c, 'echo "$1"', sh, "${{ parameters.p }}"]
    inputs:
      o: {from: a.o}
"""
CHECKED = """\
parameters: {p: {}}
name: "${{ parameters.p }}"
jobs:
  a:
    run: "${{ parameters.p }}"
    environment: {requirements: "${{ parameters.p }}", python: "${{ parameters.p }}"}
    timeout: ${{ parameters.p }}
    replicas: ${{ parameters.p }}
    local: ${{ parameters.p }}
    archive: ["${{ parameters.p }}"]
    stdin: ${{ parameters.p }}
    inputs:
      f: {source: "${{ parameters.p }}", path: "${{ parameters.p }}", sha256: "${{ parameters.p }}"}
      o: "${{ parameters.p }}"
      d: {from: "${{ parameters.p }}", optional: true, default: ["${{ parameters.p }}"]}
    outputs: {o: {format: "${{ parameters.p }}", as: "${{ parameters.p }}"}}
"""
LINES = """\
parameters: {p: {}}
name: lines
labels: {a: "${{ parameters.p }}"}
jobs:
  a:
    run: prog "x ${{ parameters.p }} y" '${{ parameters.p }}' -n${{ parameters.p }}
    variables: {A: "${{ parameters.p }}"}
"""
NASTY = st.sampled_from([
    "'", '"', "\\", "; reboot", "$(id)", "a b", "\n", "\t", "", "#", "|", ": ", "- a", "{a: b}", "*",
    "${{ parameters.p }}", "${{", "}}", "$", "{inputs.o.fd}", "\ue000", "\ue0001", "null", "true", "3",
    "a: &x", "<<", "\u2028", "\x85", "%s", "{}", "..", "/", "é", "-c",
])  # fmt: skip
VALUES = st.lists(NASTY | st.text(max_size=5), max_size=4).map("".join)
PARTS = st.lists(
    st.sampled_from(
        ["${{ parameters.p }}", "a", " ", "'", '"', "\\", "\ue000", "0", "\n", ";", "$${{"]
    )
    | st.text(max_size=2),
    max_size=12,
).map("".join)


def read(text: str, values: dict[str, ParameterValue]) -> SpecFile | None:
    with contextlib.suppress(SpecFileError):
        return parse(text, "test.yaml", Path("/nonexistent"), values)
    return None


def shape(value: Any) -> Any:
    """Return keys and lengths of a document, without its single values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [shape(item) for item in cast("Iterable[Any]", value)]
    return None


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_words_and_keys_stay_those_of_the_file(value: str) -> None:
    found = read(LINES, {"p": value})
    if found is None:  # what no program can be given
        assert "\0" in value or "{inputs." in value
        return
    (job,) = found.pipeline.jobs
    assert job.run == ("prog", f"x {value} y", value, f"-n{value}")
    assert job.variables == {"A": value}
    assert found.pipeline.labels == {"a": value}
    assert found.pipeline.parameters == {"p": value}


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_wherever_it_stands_a_value_is_one_value(value: str) -> None:
    read(CHECKED, {"p": value})  # no value ends the reader
    plain, found = read(EVERYWHERE, {"p": "word"}), read(EVERYWHERE, {"p": value})
    assert plain is not None
    # pip takes no option that installs elsewhere; an empty value asks for no label and no device
    if found is not None and value:
        assert shape(to_document(found.pipeline)) == shape(to_document(plain.pipeline))


@settings(max_examples=150, deadline=None)
@given(PARTS)
def test_a_command_is_split_as_if_a_letter_stood_in_each_place(text: str) -> None:
    with contextlib.suppress(ValueError):
        template = parse_template(text)
        words = split_template(template)
        letters = split_words(template.text(dict.fromkeys(template.names, "x")))
        assert tuple(word.text(dict.fromkeys(word.names, "x")) for word in words) == letters
        assert [name for word in words for name in word.names] == list(template.names)


@settings(max_examples=40, deadline=None)
@given(VALUES.filter(lambda text: "\x85" not in text and "\u2028" not in text))
def test_a_file_gives_what_the_command_line_gives(value: str) -> None:
    if "\0" in value or len(value) > limits.PARAMETER_CHARACTERS_MAX:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.yaml"
        path.write_text(yaml.safe_dump({"p": value}, allow_unicode=True), "utf-8", newline="")
        loaded = load_values(path)
    assert read(LINES, dict(loaded)) == read(LINES, {"p": value})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
