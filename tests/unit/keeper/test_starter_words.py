"""What keeper and starter say to each other, and which plans share a starter."""

import resource
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.keeper import starter_words as words
from edge_agent.keeper.execution import Execution
from edge_agent.keeper.starter_words import Order
from edge_agent.keeper.starters import in_common, suits, template_of
from edge_agent.sandbox.plan import FilesRule, SandboxPlan

_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0")
    | st.sampled_from([chr(0xDC80 + byte) for byte in range(128)]),
    max_size=20,
).filter(
    lambda text: text == text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
)
_NAME = _TEXT.filter(lambda text: text != "" and "=" not in text)
_USER = st.integers(0, (1 << 32) - 1)


@given(
    st.builds(
        Order,
        uid=_USER,
        gid=_USER,
        mark=st.integers(0, (1 << 62) - 1),
        groups=st.integers(-1, 47),
        join=st.integers(0, 12),
        numbers=st.lists(st.integers(0, 500), max_size=5).map(tuple),
        cwd=_TEXT,
        stdin=_TEXT,
        argv=st.lists(_TEXT, min_size=1, max_size=5),
        env=st.dictionaries(_NAME, _TEXT, max_size=5),
    )
)
def test_an_order_is_read_as_it_was_written(order: Order) -> None:
    assert words.read_order(words.order_bytes(order)) == order


def test_a_word_with_a_nul_is_no_order() -> None:
    order = Order(1, 1, 1, -1, 0, (), "/", "", ["/bin/true", "a\0b"], {})
    with pytest.raises(ValueError, match="NUL"):
        words.order_bytes(order)


def test_answers_are_read_as_they_were_written() -> None:
    assert words.read_started(words.started(4711)) == 4711
    assert words.read_signal(words.signal_bytes(4711, 15)) == (4711, 15)
    assert words.read_why(words.refused("no such file")) == "no such file"
    assert words.read_failed(words.failed("no such file")) == ("no such file", None)
    assert words.read_failed(words.failed("no such group", 0)) == ("no such group", 0)


PLAN = SandboxPlan(
    join=("/groups/a/tasks",),
    uid=1001,
    gid=1001,
    no_new_privileges=True,
    files=(FilesRule("/usr"),),
    own=(FilesRule("/state/attempts/a/work", write=True),),
    kill=("/groups/a",),
    attempts="/state/attempts",
)


def test_attempts_of_one_recipe_have_one_template() -> None:
    other = replace(
        PLAN,
        join=("/groups/b/tasks",),
        uid=1002,
        gid=1002,
        own=(FilesRule("/state/attempts/b/work", write=True),),
        kill=("/groups/b",),
    )
    assert template_of(other) == template_of(PLAN)
    assert in_common(other) == in_common(PLAN)
    assert template_of(PLAN).own == (FilesRule("/state/attempts", write=True),)


@pytest.mark.parametrize(
    "change",
    [
        {"limits": ((7, 100),)},
        {"groups": (44,)},
        {"oom_score": 700},
        {"scoped": True},
        {"seccomp": "AA=="},
        {"files": (FilesRule("/usr"), FilesRule("/opt"))},
        {"files": (FilesRule("/usr", write=True),)},
        {"own": ()},
        {"attempts": "/other/attempts"},
    ],
)
def test_what_else_differs_is_another_template(change: dict[str, object]) -> None:
    other = replace(PLAN, **change)  # type: ignore[arg-type]
    assert template_of(other) != template_of(PLAN)
    assert in_common(other) != in_common(PLAN)


@pytest.mark.parametrize(
    ("change", "suited"),
    [
        ({}, True),
        ({"own": (FilesRule("/state/attempts-of-others/x", write=True),)}, False),
        ({"own": (FilesRule("/home", write=True),)}, False),
        ({"attempts": ""}, False),
        ({"uid": -1}, False),
        ({"no_new_privileges": False}, False),
        ({"wrap": ("/usr/bin/bwrap",)}, False),
        ({"limits": ((int(resource.RLIMIT_CPU), 10),)}, False),
        ({"limits": ((int(resource.RLIMIT_DATA), 1 << 20),)}, False),
        ({"limits": ((int(resource.RLIMIT_DATA), -1), (int(resource.RLIMIT_FSIZE), 0))}, True),
    ],
)
def test_a_starter_takes_what_it_does_as_a_fork_would(
    change: dict[str, object],
    suited: bool,  # noqa: FBT001 - a column of the table
) -> None:
    plan = replace(PLAN, **change)  # type: ignore[arg-type]
    execution = Execution("a", ["/bin/true"], {}, "/", "", [(7, 1), (8, 2)], 1, plan)
    assert suits(execution) is suited
    assert not suits(replace(execution, descriptors=[(7, 1), (8, 9)])), "a port of another number"
