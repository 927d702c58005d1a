"""Write more into its folder than it claims, deleted files included.

Refused at: user; RLIMIT_FSIZE and the agent, which looks at the folder.
Tried by: tests/integration/sandbox/test_bombs.py::test_a_bomb_fails_for_what_it_took
"""
