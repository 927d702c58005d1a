"""The command of a job: words, of which none is meant for a shell and none hides a program."""

from collections.abc import Sequence

import yaml

from shoal.checks.ports import PORT_PLACE
from shoal.checks.problem import Path
from shoal.specfile.filled_word import FilledWord
from shoal.specfile.program_text import program_words
from shoal.specfile.scalars import Scalars

_SHELL_WORDS = {"|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"}


class CommandReader:
    """Reads `run`, and leaves what was wrong with `scalars`."""

    def __init__(self, scalars: Scalars) -> None:
        self._scalars = scalars

    def read(self, node: yaml.Node, path: Path) -> tuple[str, ...]:
        """Read a command, a text or a list of words."""
        filled = self._scalars.words(node, path, "a command, or a list of its words") or ()
        words = tuple(word.text for word in filled)
        self._refuse_programs(filled, node, path)
        for word in (one.written for one in filled if isinstance(node, yaml.ScalarNode)):
            if word in _SHELL_WORDS or word.startswith("<<"):
                self._scalars.complain(
                    path,
                    f"no shell runs this, so the program would get {word!r} as a word; "
                    "write [sh, -c, '…'] to use a shell, or a list of words if it is meant",
                    node,
                )
                break
        return words

    def _refuse_programs(self, words: Sequence[FilledWord], node: yaml.Node, path: Path) -> None:
        """Complain about texts that would become a part of a program, or the place of a port."""
        programs = program_words([word.text for word in words])
        for place, word in enumerate(words):
            if not word.texts:
                continue
            name = word.texts[0]
            if place in programs:
                self._scalars.complain(
                    path,
                    f"the text of the parameter {name!r} would be a part of the program that "
                    f"{words[0].text!r} runs, and could hold commands; give it as a word of its "
                    f'own, [sh, -c, \'ls "$1"\', sh, "${{{{ parameters.{name} }}}}"], or in '
                    "`variables`",
                    node,
                )
                return
            if len(PORT_PLACE.findall(word.text)) > len(PORT_PLACE.findall(word.written)):
                self._scalars.complain(
                    path,
                    f"the text of the parameter {name!r} names the place of a port, which would be "
                    "replaced by a number; write another value",
                    node,
                )
                return
