"""Leave a secret of its own in a core file.

Refused at: none; a crash writes none.

Tried by: tests/integration/sandbox/test_secrets.py::test_a_job_that_crashes_leaves_no_core_file
"""
