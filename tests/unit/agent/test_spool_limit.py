"""When a node takes no new work because too much of it waits for the archive."""

from edge_agent.uploads.spool_limit import SpoolLimit

GB = 10**9


def test_a_fifth_of_the_disk_may_wait_and_less_than_three_quarters_of_that_ends_it() -> None:
    limit = SpoolLimit(None)
    limit.measured(int(9.9 * GB), 3, 50 * GB)
    assert limit.refusal == ""
    limit.measured(10 * GB, 3, 50 * GB)
    assert "9.3 GiB of 3 attempts wait for the archive" in limit.refusal
    before = limit.refusal
    limit.measured(8 * GB, 2, 50 * GB)
    assert limit.refusal == before  # the words are news once
    limit.measured(7 * GB, 2, 50 * GB)
    assert limit.refusal == ""


def test_any_amount_may_wait_where_the_limit_is_0() -> None:
    limit = SpoolLimit(0)
    limit.measured(10**15, 9, GB)
    assert limit.refusal == ""
    own = SpoolLimit(5)
    own.measured(5, 1, 0)
    assert "--spool-limit" in own.refusal
