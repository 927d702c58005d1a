"""By which numbers a starter knows groups: what it is asked to join by number alone is what it was brought by that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.keeper.group_files import GroupNumbers, opened


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=200))
def test_a_starter_has_what_it_is_said_to_have(files: int, asked: list[tuple[int, bool]]) -> None:
    numbers = GroupNumbers(files)
    has: dict[int, tuple[str, ...]] = {}
    for group, goes in asked:
        paths = (f"/cpu/{group}/tasks", f"/memory/{group}/tasks")
        number = numbers.number(paths)
        if numbers.known(paths):
            assert has[number] == paths
        if not goes:
            continue  # the order was too long, or a file could not be opened
        has[number] = paths
        numbers.has(paths, number)
        assert numbers.known(paths)
        assert numbers.number(paths) == number
        assert len(has) <= max(1, files // len(paths))


def test_the_group_that_was_joined_longest_ago_makes_room() -> None:
    numbers = GroupNumbers(2)
    for paths in (("/a",), ("/b",), ("/a",), ("/c",)):
        numbers.has(paths, numbers.number(paths))
    assert numbers.known(("/a",))
    assert not numbers.known(("/b",))
    assert numbers.known(("/c",))


def test_a_group_that_is_not_there_is_named() -> None:
    with pytest.raises(
        FileNotFoundError, match="cannot join the control group /nowhere/tasks: No such"
    ):
        opened(("/dev/null", "/nowhere/tasks"))
