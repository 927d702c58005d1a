"""The file that a command cannot do without: its program, or the script of its interpreter.

A job starts in a folder that holds the bundle and its file inputs, and nothing else. So a relative path
with a slash as the program, and the script that an interpreter is given, have to be among them:
`./filter -v`, `python -u main.py`, `sh run.sh`. Only what is certain is said: `python -m counter`,
`python -c '…'`, absolute paths and words with placeholders are left to the start of the job.
"""

import re
from collections.abc import Sequence

_SUFFIXES = {
    "python": (".py", ".pyz"),
    "node": (".js", ".mjs", ".cjs"),
    "sh": (".sh",),
    "bash": (".sh", ".bash"),
    "perl": (".pl",),
    "ruby": (".rb",),
    "Rscript": (".R", ".r"),
}
"""By the interpreter, how its scripts are called: a word that ends otherwise may be an option's value."""

_VERSION = re.compile(r"[0-9.]+$")
_TAKES_CODE = re.compile(r"-[A-Za-z]*[cme]")


def program_file(run: Sequence[str]) -> str:
    """Return the path, relative to the job's folder, of the file that a command needs; empty if unknown."""
    if not run:
        return ""
    program = run[0]
    if program.startswith("/") or "{" in program:
        return ""
    if "/" in program:
        return program
    suffixes = _SUFFIXES.get(_VERSION.sub("", program), ())
    for word in run[1:]:
        if not suffixes or _TAKES_CODE.fullmatch(word):
            return ""
        if word.startswith("-"):
            continue
        return (
            word if word.endswith(suffixes) and not word.startswith("/") and "{" not in word else ""
        )
    return ""
