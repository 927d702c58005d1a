"""Have the agent archive a file of others, by a link or by a name that changes meanwhile.

Refused at: user; of a job's folder the agent reads what is its user's, and follows no name twice.
Tried by: tests/unit/agent/test_job_folders.py::test_names_that_change_between_two_looks_lead_to_nothing_of_others
"""
