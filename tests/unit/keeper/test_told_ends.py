"""Ends that one process writes and another one reads: in order, each once, and all of them once the writer is gone."""

import os

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.keeper.child import ChildEnd
from edge_agent.keeper.told_ends import ENDS_MAX, ToldEnds

_END = st.builds(
    ChildEnd, st.integers(1, (1 << 31) - 1), exited=st.booleans(), status=st.integers(0, 255)
)


@given(st.lists(st.lists(_END, max_size=40), max_size=80))
def test_what_was_told_is_taken_once_and_in_order(turns: list[list[ChildEnd]]) -> None:
    ends = ToldEnds()
    count = 0
    for turn in turns:
        for end in turn:
            ends.tell(end)
        assert ends.left() is bool(turn)
        assert [ends.take() for _ in turn] == turn
        count += len(turn)
        assert ends.taken == count
        assert not ends.left()
    ends.close()


def test_as_many_as_there_may_be_are_told_by_another_process_that_is_gone_then() -> None:
    ends = ToldEnds()
    all_of_them = [
        ChildEnd(pid, exited=pid % 2 == 0, status=pid % 256) for pid in range(1, ENDS_MAX + 1)
    ]
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            for end in all_of_them:
                ends.tell(end)
            os._exit(0)
        os.waitpid(pid, 0)
        assert [ends.take() for _ in all_of_them] == all_of_them
        assert not ends.left()
        for end in all_of_them:  # as this process does not know what the other one has told
            ends.tell(end)
            assert ends.take() == end
    ends.close()
