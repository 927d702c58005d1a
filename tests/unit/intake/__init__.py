"""Tests of the intake: what becomes of messages."""
