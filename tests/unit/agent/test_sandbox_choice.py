"""What an agent does with the levels that it has found: the default of its jobs, or a refusal with remedies."""

import pytest

from edge_agent.sandbox.probe import TriedLevels, decide
from services.runtime.process import StartRefusedError
from shoal.sandbox import NodeSandbox, SandboxLevel

NONE, USER, CONFINED = SandboxLevel
NO_ROOT = "cannot become another user"
NO_WRAP = "there is no bubblewrap"


def found(user: str = "", confined: str = "", remark: str = "") -> TriedLevels:
    return TriedLevels({USER: user, CONFINED: confined}, ("seccomp",), remark)


@pytest.mark.parametrize(
    ("wanted", "there", "default", "levels"),
    [
        (None, found(), USER, {USER, CONFINED}),
        (None, found(user=NO_ROOT), CONFINED, {CONFINED}),
        (None, found(confined=NO_WRAP), USER, {USER}),
        (USER, found(), USER, {USER, CONFINED}),
        (USER, found(remark="the interpreter"), USER, {USER, CONFINED}),
        (CONFINED, found(), CONFINED, {USER, CONFINED}),
        (NONE, found(), NONE, {NONE, USER, CONFINED}),
        (NONE, found(NO_ROOT, NO_WRAP), NONE, {NONE}),
    ],
)
def test_the_level_is_the_one_asked_for_or_the_best_that_is_there(
    wanted: SandboxLevel | None,
    there: TriedLevels,
    default: SandboxLevel,
    levels: set[SandboxLevel],
) -> None:
    refused = {level: why for level, why in there.against.items() if why}
    assert decide(wanted, there) == NodeSandbox(
        default, frozenset(levels), filters=("seccomp",), refused=refused
    )


@pytest.mark.parametrize(
    ("wanted", "there", "words"),
    [
        (
            None,
            found(NO_ROOT, NO_WRAP),
            f"no sandbox for jobs can be had here. user: {NO_ROOT}. confined: {NO_WRAP}. Or say --sandbox none",
        ),
        (
            None,
            found(remark="no way to the interpreter"),
            "user and confined: no way to the interpreter. Or say",
        ),
        (
            None,
            found(confined=NO_WRAP, remark="no way"),
            f"user: no way. confined: {NO_WRAP}. Or say",
        ),
        (
            USER,
            found(user=NO_ROOT),
            f"level user cannot be had here. user: {NO_ROOT}. confined: can",
        ),
        (CONFINED, found(confined=NO_WRAP), f"user: can be had. confined: {NO_WRAP}. Or say"),
    ],
)
def test_what_cannot_be_had_is_refused_with_why_for_each_level(
    wanted: SandboxLevel | None, there: TriedLevels, words: str
) -> None:
    with pytest.raises(StartRefusedError) as refused:
        decide(wanted, there)
    assert words in str(refused.value)
