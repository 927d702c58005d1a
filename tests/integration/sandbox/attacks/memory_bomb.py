"""Take more memory than it claims, by one process, by many, or by files in memory.

Refused at: user; control groups, RLIMIT_DATA for each process where there are none.
Tried by: tests/integration/sandbox/test_bombs.py::test_a_bomb_fails_for_what_it_took
"""
