"""A plan of a sandbox is read as it was written, or not at all."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sandbox.plan import FilesRule, SandboxPlan
from edge_agent.sandbox.plan_json import plan_from_json, plan_text, plan_to_json

_TEXTS = st.lists(st.text(max_size=4).filter(lambda text: "\0" not in text), max_size=3).map(tuple)
_NUMBERS = st.integers(-1, (1 << 63) - 1)
_RULES = st.lists(st.builds(FilesRule, st.just("/srv"), st.booleans()), max_size=2).map(tuple)
PLANS = st.builds(
    SandboxPlan,
    join=_TEXTS,
    oom_score=st.integers(-1000, 1000),
    limits=st.lists(st.tuples(_NUMBERS, _NUMBERS), max_size=3).map(tuple),
    uid=_NUMBERS,
    gid=_NUMBERS,
    groups=st.lists(_NUMBERS, max_size=3).map(tuple),
    no_new_privileges=st.booleans(),
    files=_RULES,
    own=_RULES,
    scoped=st.booleans(),
    seccomp=st.just("AAAA"),
    wrap=_TEXTS,
    kill=_TEXTS,
    attempts=st.sampled_from(["", "/state/attempts"]),
)


@given(PLANS)
def test_a_plan_is_read_as_it_was_written(plan: SandboxPlan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    assert plan_from_json(json.loads(plan_text(plan))) == plan
    other = replace(plan, uid=7, gid=7, join=("/a",), kill=(), own=(), wrap=("b",))
    assert plan_from_json(json.loads(plan_text(other))) == other
    assert plan_from_json({}) == SandboxPlan()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"the plan is \[\] and not an object"),
        ({"later": 1}, "has no field 'later': it is of another version"),
        ({"uid": "0"}, "the plan's uid is '0' and not a number"),
        ({"uid": True}, "the plan's uid is True"),
        ({"uid": -2}, "the plan's uid is -2"),
        ({"gid": 1 << 63}, "the plan's gid is"),
        ({"oom_score": 1001}, "the plan's oom_score is 1001 and not from -1000 to 1000"),
        ({"limits": [[1]]}, "is not a limit and its value"),
        ({"limits": {}}, "the plan's limits is {} and not a list"),
        ({"no_new_privileges": 1}, "is 1 and not true or false"),
        ({"files": '[["/"]]'}, "which is not a path and whether it is written"),
        ({"files": "[" * 100_000}, "the plan's files are no JSON"),
        ({"files": [["/", False]]}, "not a text"),
        ({"own": [["/", 1]]}, "is 1 and not true or false"),
        ({"own": [["/a\0b", True]]}, "not a text without NUL"),
        ({"own": [["/a", True], ["/b\0c", False]]}, "not a text without NUL"),
        ({"own": [[1, True]]}, "is 1 and not a text"),
        ({"own": ["ab"]}, "'ab', which is not a path and whether it is written"),
        ({"own": [["/a", True, True]]}, "which is not a path and whether it is written"),
        ({"own": {}}, "the plan's own is {} and not a list"),
        ({"join": ["a\0b"]}, "not a text without NUL"),
        ({"wrap": "bwrap"}, "the plan's wrap is 'bwrap' and not a list"),
    ],
)
def test_what_is_no_plan_is_refused_with_words(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_from_json(value)
