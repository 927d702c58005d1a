"""The files of a new pipeline: small enough to be read at once, complete enough to run as they are.

They lie in `shoal/templates`, each with `.txt` behind its name, so that no tool takes them for ours.
"""

import re
from collections.abc import Mapping
from importlib.resources import files

from shoal import names

_FILES = (
    "pipeline.yaml", "numbers_source.py", "square.py", "table.py", "test_jobs.py", "README.md",
)  # fmt: skip
_NAME = "NAME-OF-THE-PIPELINE"
"""Stands in the templates for the name."""


class ScaffoldNameError(ValueError):
    """No pipeline can have this name; the message says which one is close."""


def scaffold(name: str) -> Mapping[str, str]:
    """Return the text of every file of a new pipeline, by its path in the folder.

    Raises:
        ScaffoldNameError: no pipeline can have this name.
    """
    if not names.ID_PATTERN.fullmatch(name):
        raise ScaffoldNameError(
            f"{name!r} cannot name a pipeline, which begins with a letter and has at most 63 small "
            f"letters, digits and hyphens; {_remedy(name)}"
        )
    templates = files("shoal") / "templates"
    return {
        path: (templates / f"{path}.txt").read_text("utf-8").replace(_NAME, name) for path in _FILES
    }


def _remedy(name: str) -> str:
    close = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    close = re.sub(r"^[0-9-]+", "", close)[:63].rstrip("-")
    return f"how about {close!r}?" if close else "choose another one, such as 'people-counter'"
