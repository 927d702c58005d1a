"""Attacks of jobs, one a file. Each runs as a job and finds its victims in the world that it is given.

The first line of a file's docstring is what docs/security.md calls the attack. The line `Refused at:` names the lowest
level that refuses it (`none`, `user`, `confined`, `no network` for level confined without a network, `never`), and what
does so; `Tried by:` names a test of its own, if the attack is no function here.
`attack(world)` returns what it got, and raises OSError if it is refused.
"""
