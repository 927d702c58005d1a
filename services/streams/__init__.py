"""Streams between jobs: blocks, lanes, retention, recovery, and the process that carries them."""
