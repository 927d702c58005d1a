"""The command of a job: words, of which none is meant for a shell and none hides a program."""

from collections.abc import Sequence

import yaml

from shoal.checks.ports import PORT_PLACE
from shoal.checks.problem import Path
from shoal.placed_folder import FOLDER_PLACE
from shoal.specfile.filled_word import FilledWord
from shoal.specfile.program_text import program_words
from shoal.specfile.scalars import Scalars

_PLACES = (
    (PORT_PLACE, "a port, which would be replaced by a number"),
    (FOLDER_PLACE, "a file of an input, which would be replaced by its path"),
)
_SHELL_WORDS = {"|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"}


def read_command(scalars: Scalars, node: yaml.Node, path: Path) -> tuple[str, ...]:
    """Read `run`, a text or a list of words; what was wrong with it is left with `scalars`."""
    filled = scalars.words(node, path, "a command, or a list of its words") or ()
    if problem := _hidden_program(filled):
        scalars.complain(path, problem, node)
    for word in (one.written for one in filled if isinstance(node, yaml.ScalarNode)):
        if word in _SHELL_WORDS or word.startswith("<<"):
            scalars.complain(
                path,
                f"no shell runs this, so the program would get {word!r} as a word; "
                "write [sh, -c, '…'] to use a shell, or a list of words if it is meant",
                node,
            )
            break
    return tuple(word.text for word in filled)


def _hidden_program(words: Sequence[FilledWord]) -> str:
    """Say which text would become a part of a program, or the place of a port; empty if none would."""
    programs = program_words([word.text for word in words])
    for place, word in enumerate(words):
        if not word.texts:
            continue
        name = word.texts[0]
        if place in programs:
            return (
                f"the text of the parameter {name!r} would be a part of the program that "
                f"{words[0].text!r} runs, and could hold commands; give it as a word of its "
                f'own, [sh, -c, \'ls "$1"\', sh, "${{{{ parameters.{name} }}}}"], or in '
                "`variables`"
            )
        for place_of, what in _PLACES:
            if len(place_of.findall(word.text)) > len(place_of.findall(word.written)):
                return (
                    f"the text of the parameter {name!r} names the place of {what}; "
                    "write another value"
                )
    return ""
