"""What a pipeline does for programs that were written for the edge-analytics dashboard."""

import unicodedata
from dataclasses import dataclass

COMPAT_NAME_BYTES_MAX = 128
"""Longest user, action or task, in UTF-8: the three, and `Results/`, leave room in a key of S3."""

RESULTS = "Results"
"""Folder of a task that its readers look into."""

_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's classes of control characters, halves of surrogate pairs, and line breaks."""


@dataclass(frozen=True, slots=True)
class Compat:
    """Under which names the dashboard knows a pipeline, and what it is given of it.

    `updates_topic` publishes each stage on the topic `Updates`; `legacy_results` copies results to
    `{user}/{action}/{task}/Results/`.
    """

    user: str = ""
    action: str = ""
    task: str = ""
    updates_topic: bool = False
    legacy_results: bool = False

    @property
    def results_prefix(self) -> str:
        """Where copies of results stand, without a slash at its end."""
        return f"{self.user}/{self.action}/{self.task}/{RESULTS}"


def compat_name_problem(name: str) -> str:
    """Say why `name` cannot be a user, an action or a task; empty when it can. The words follow the name.

    It becomes a part of a key in S3 and stands in a message, so it is one part of a path. An empty
    name is none, and is no problem.
    """
    if name in {".", ".."}:
        return "is no name but a way through folders; write a name"
    if "/" in name:
        return "has a slash, which would make it several parts of a key; leave it out"
    if name != name.strip():
        return "begins or ends with a blank, which nobody sees in a key; leave it out"
    if any(unicodedata.category(one) in _REFUSED_CATEGORIES for one in name):
        return "holds a control character or a line break; leave it out"
    size = len(name.encode())
    if size > COMPAT_NAME_BYTES_MAX:
        return f"has {size} bytes, {COMPAT_NAME_BYTES_MAX} at most; shorten it"
    return ""
