"""Mistakes in `compat`: names that are no part of a key, wishes without names, several jobs."""

from tests.integration.sdk.mistakes.mistake import SpecMistake

_JOB = "jobs: {a: {run: x}}"
_TWO = "jobs: {a: {run: x}, b: {run: x}}"
_LOCAL = "jobs: {a: {run: x, local: true}}"
_COPIES = "legacy_results: true, user: a, task: t"
_WISH = "user: ada, task: t7, updates_topic: true"

_ROWS = (
    (f"compat: {{user: a/b}}\n{_JOB}", "compat.user", "'a/b'", "has a slash"),
    (f"compat: {{task: ..}}\n{_JOB}", "compat.task", "'..'", "write a name"),
    (f'compat: {{action: "a\\nb"}}\n{_JOB}', "compat.action", "control character", "leave it out"),
    (f'compat: {{user: "ada "}}\n{_JOB}', "compat.user", "with a blank", "leave it out"),
    (f"compat: {{user: {'a' * 129}}}\n{_JOB}", "compat.user", "has 129 bytes", "128 at most"),
    (f"compat: {{updates_topic: true}}\n{_JOB}", "compat.updates_topic", "needs user and task", "user: ada"),
    (f"compat: {{{_COPIES}}}\n{_JOB}", "compat.legacy_results", "needs action", "action: Classification"),
    (f"compat: {{{_WISH}}}\n{_TWO}", "compat", "one program", "a pipeline of its own"),
    (f"compat: {{{_WISH}}}\njobs: {{a: {{run: x, replicas: 2}}}}", "compat", "one program", "without replicas"),
    (f"compat: {{{_WISH}}}\n{_LOCAL}", "compat", "'a' is local", "leave out `local`"),
    (f"compat: {{userName: ada}}\n{_JOB}", "compat.userName", "'userName'", "write `user: NAME`"),
    (f"compat: {{updates_topic: maybe}}\n{_JOB}", "compat.updates_topic", "'maybe'", "true or false"),
    (f"taskName: t7\n{_JOB}", "taskName", "'taskName'", "compat: {user: ada"),
)  # fmt: skip
SPECIFICATIONS = tuple(SpecMistake(*row) for row in _ROWS)
