"""Find a secret in views, events, messages, objects, journals and command lines.

Refused at: none; values travel and lie sealed, and stand in none of these.
Tried by: tests/integration/sandbox/test_secrets.py::test_no_part_of_a_cluster_keeps_or_tells_a_secret
"""
