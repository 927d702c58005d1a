"""Tests of what is done to a process before it is a job's."""
