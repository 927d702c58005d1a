"""Start processes without an end, so that the node has none for others.

Refused at: user; control groups, RLIMIT_NPROC where there are none.
Tried by: tests/integration/sandbox/test_bombs.py::test_neighbours_go_on_and_the_board_stays_alive
"""
