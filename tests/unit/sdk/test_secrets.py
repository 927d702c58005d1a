"""Secrets of jobs as they are written and checked, and values that are shown nowhere."""

from pathlib import Path

import pytest

from shoal.check import check_pipeline
from shoal.names import AttemptRef
from shoal.secret import SECRET_BYTES_MAX, SecretForm, SecretUse, is_text, value_problem
from shoal.session.assignment import Assignment
from shoal.session.feature import Feature, needed_features
from shoal.spec import Job, Pipeline
from shoal.specfile.load import parse
from shoal.specfile.mark import SpecFileError
from shoal.wire.assignment import decode_assignment, encode_assignment
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_job_spec, encode_job_spec

VALUE = b"hunter2-never-shown"
JOB = Job("a", ("x",), secrets=(SecretUse("API_TOKEN", "lab-token"),))
ASSIGNED = Assignment(AttemptRef("n", "p", "a", 1, 1), JOB, secrets={"lab-token": VALUE})


def written(secrets: str, more: str = "") -> str:
    return f"name: p\njobs:\n  a:\n    run: [sh, -c, env]\n    secrets: {secrets}\n    {more}\n"


def complaints(text: str, tmp_path: Path) -> list[str]:
    with pytest.raises(SpecFileError) as caught:
        parse(text, "spec.yaml", tmp_path)
    return [str(one) for one in caught.value.findings]


def test_both_forms_are_read(tmp_path: Path) -> None:
    found = parse(
        written("{API_TOKEN: lab-token, KEY: {name: lab-key, as: file}}"), "spec.yaml", tmp_path
    )
    (job,) = found.pipeline.jobs
    assert job.secrets == (
        SecretUse("API_TOKEN", "lab-token"),
        SecretUse("KEY", "lab-key", SecretForm.FILE),
    )
    assert not check_pipeline(found.pipeline)
    assert decode_job_spec(encode_job_spec(job)) == job
    assert needed_features(found.pipeline, job) == {Feature.SECRETS}


@pytest.mark.parametrize(
    ("secrets", "more", "said"),
    [
        ("[lab-token]", "", "a mapping from variables to names of secrets"),
        ("{API_TOKEN: {as: file}}", "", "it names no secret; add for example `name: lab-token`"),
        ("{API_TOKEN: {name: t, as: stdin}}", "", "'stdin' is not possible here"),
        ("{API_TOKEN: {name: t, value: v}}", "", "there is no 'value' here"),
        ("{API_TOKEN: ghp_16C7e42F292c}", "", "what stands there is no name of a secret"),
        ("{API-TOKEN: t}", "", "'API-TOKEN' is not the name of a variable"),
        ("{SHOAL_JOB: t}", "", "names that begin with SHOAL_ are set by the system"),
        ("{A: t}", "variables: {A: b}", "`variables` has a value for it, too"),
        (
            f"{{{', '.join(f'V{n}: t' for n in range(33))}}}",
            "",
            "there are 33, 32 at most; put several values into one",
        ),
        ("{A: t}", "local: true", "leave out `secrets`"),
    ],
)
def test_what_cannot_be_is_said(secrets: str, more: str, said: str, tmp_path: Path) -> None:
    assert any(said in one for one in complaints(written(secrets, more), tmp_path))


def test_a_value_in_the_place_of_a_name_is_not_repeated(tmp_path: Path) -> None:
    value = "ghp_16C7e42F292c"
    assert value not in str(complaints(written(f"{{API_TOKEN: {value}}}"), tmp_path))
    message = encode_job_spec(JOB)
    message.secrets[0].name = value
    with pytest.raises(WireError, match="what stands there is no name of a secret") as told:
        decode_job_spec(message)
    assert value not in str(told.value)


def test_a_variable_stands_for_one_secret() -> None:
    job = Job("a", ("x",), secrets=(SecretUse("A", "one"), SecretUse("A", "two")))
    (problem,) = check_pipeline(Pipeline("p", (job,)))
    assert "it is there twice" in problem.message


def test_values_travel_and_are_not_shown() -> None:
    assert decode_assignment(encode_assignment(ASSIGNED)) == ASSIGNED
    assert VALUE.decode() not in repr(ASSIGNED)


def test_a_controller_that_sends_too_much_is_refused() -> None:
    message = encode_assignment(ASSIGNED)
    message.secrets["lab-token"] = b"x" * (SECRET_BYTES_MAX + 1)
    with pytest.raises(WireError, match=r"secrets\[lab-token\]: it has 16385 bytes, 16384 at most"):
        decode_assignment(message)
    message = encode_assignment(ASSIGNED)
    message.secrets["../x"] = b"x"
    with pytest.raises(WireError, match="not a valid id"):
        decode_assignment(message)


def test_what_a_value_may_be() -> None:
    assert not value_problem(VALUE)
    assert "has 3 bytes; give 4 at least" in value_problem(b"abc")
    long = VALUE * 1_000
    assert f"has {len(long)} bytes" in value_problem(long)
    assert VALUE.decode() not in value_problem(long)
    assert is_text("Łódź".encode())
    assert not is_text(b"a\0b")
    assert not is_text(b"\xff")
