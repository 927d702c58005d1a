"""Do any of this in the setup script of a package that is built for an environment.

Refused at: user; builds run behind the same door, as a user of builds.
Tried by: tests/integration/sandbox/test_environment_builds.py::test_the_code_of_a_package_reaches_nothing_but_its_own
"""
