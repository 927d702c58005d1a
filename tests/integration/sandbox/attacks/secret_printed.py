"""Print a secret of its own: in a traceback, with its environment, encoded.

Refused at: none; the values are hidden in all that leaves the board.

Tried by: tests/integration/sandbox/test_secrets.py::test_a_secret_is_in_nothing_that_a_job_printed_and_in_no_reason
"""
