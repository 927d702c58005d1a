"""Secrets of jobs on a board: sealed in the journal, handed to programs, hidden in what leaves the board."""
