"""No text ends a reader with anything but a specification or named mistakes."""

import contextlib
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.check import check_pipeline
from shoal.ignore import IgnoreRules
from shoal.specfile.load import parse
from shoal.specfile.mark import SpecFileError
from shoal.specfile.units import parse_duration, parse_size
from shoal.wire.spec import decode_pipeline_spec, encode_pipeline_spec
from tests.property.sdk import specs

WORDS = st.sampled_from(
    [
        "name",
        "jobs",
        "run",
        "bundle",
        "inputs",
        "outputs",
        "from",
        "source",
        "path",
        "format",
        "as",
        "environment",
        "steps",
        "pip",
        "url",
        "requirements",
        "a",
        "b",
        "a.o",
        "b.o",
        "o",
        "i",
        "lines",
        "bytes:4",
        "stdin",
        "stdout",
        "replicas",
        "retry",
        "attempts",
        "place",
        "require",
        "prefer",
        "archive",
        "timeout",
        "2",
        "0",
        "-1",
        "1.5",
        "90s",
        ".",
        "..",
        "/",
        "true",
        "null",
        "recovery",
        "resume",
        "<<",
        "x-y",
        "parameters",
        "type",
        "default",
        "choices",
        "${{ parameters.a }}",
        "x ${{ parameters.b }}",
        "${{",
    ]
)
SCALARS = WORDS | st.text(max_size=8) | st.integers() | st.floats() | st.none() | st.booleans()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)
JOB_LIKE = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("run", "environment", "inputs", "outputs", "replicas", "place", "archive"), TREES
    ),
)


def read(text: str) -> None:
    with contextlib.suppress(SpecFileError):
        parse(text, "fuzz.yaml", Path("/nonexistent"))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_random_text(text: str) -> None:
    read(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(list("&*!|>%@`{}[],:?-#'\"\\ \n\tab1~<"))).map("".join))
def test_random_punctuation(text: str) -> None:
    read(text)


@settings(max_examples=100, deadline=None)
@given(TREES | st.fixed_dictionaries({"name": TREES, "jobs": st.dictionaries(WORDS, JOB_LIKE)}))
def test_random_trees(tree: object) -> None:
    read(yaml.safe_dump(tree, allow_unicode=True))


@settings(max_examples=50, deadline=None)
@given(specs.PIPELINES)
def test_any_specification_can_be_checked(pipeline: object) -> None:
    decoded = decode_pipeline_spec(encode_pipeline_spec(pipeline))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for problem in check_pipeline(decoded, frozenset()):
        assert problem.message
        assert str(problem)


@given(st.text(max_size=10) | st.from_regex(r"[0-9.]{1,5}(ms|s|m|MiB|GB|)", fullmatch=True))
def test_units_are_numbers_or_refused(text: str) -> None:
    for convert in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert convert(text) >= 0


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=12), st.booleans())
def test_any_pattern_can_be_tried(lines: list[str], path: str, folder: bool) -> None:  # noqa: FBT001
    assert IgnoreRules.parse(lines).ignores(path, folder=folder) in {True, False}
