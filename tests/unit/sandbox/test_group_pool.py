"""Which control groups are kept for attempts to come."""

from edge_agent.sandbox.group_pool import GroupPool


def test_a_group_goes_only_where_its_limits_are_asked_for_and_once() -> None:
    pool: GroupPool[str, int] = GroupPool()
    assert pool.take("small") is None
    assert pool.give("small", 1)
    assert pool.give("small", 2)
    assert pool.take("large") is None
    assert [pool.take("small") for _ in range(3)] == [2, 1, None]


def test_what_lies_between_two_looks_is_given_up_and_what_was_taken_is_not() -> None:
    pool: GroupPool[str, int] = GroupPool()
    for group in range(3):
        pool.give("small", group)
    pool.give("large", 9)
    assert pool.stale() == []
    taken = pool.take("small")
    assert taken == 2
    pool.give("small", taken)
    assert sorted(pool.stale()) == [0, 1, 9]
    assert (pool.take("large"), pool.take("small")) == (None, 2)


def test_there_is_an_end_to_what_is_kept() -> None:
    pool: GroupPool[int, int] = GroupPool()
    assert [pool.give(number % 7, number) for number in range(65)] == [True] * 64 + [False]
    assert sorted(pool.clear()) == list(range(64))
    assert pool.clear() == []
