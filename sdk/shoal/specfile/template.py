"""A value of a specification file in which `${{ parameters.NAME }}` may stand.

Theory. A value is cut into words before parameters are put in, never after: what is put in cannot end
a word, open a quote or begin another command. So a command is split with a stand-in for each
parameter, which is one letter to the splitter, and the parts of each word are found again in it.

Rules. `$${{` is the text `${{`. What is put in is not read again: a value that looks like a parameter
stays as it is.

Example: `python a.py '${{ parameters.title }}'` has three words whatever the title is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoal.specfile.words import split_words

OPENING = "${{"
"""What a parameter begins with, in a value."""

KEY_PROBLEM = "no parameter can stand in a key; write the key itself, and parameters in values"

_PLACE = re.compile(r"(\$\$\{\{)|\$\{\{(?:\s*parameters\.([A-Za-z0-9_-]+)\s*\}\})?")
_LETTER = "\ue000"
"""A letter to the splitter, of the private use area. `_LETTER` 0 is the letter itself."""
_CODED = re.compile(rf"{_LETTER}(?:0|1([0-9]+){_LETTER})")


@dataclass(frozen=True, slots=True)
class Template:
    """Texts at its even places, and names of parameters at its odd ones."""

    parts: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that stand in it."""
        return self.parts[1::2]

    @property
    def whole(self) -> str:
        """The parameter that is all of it; empty if there is none."""
        return self.parts[1] if len(self.parts) == 3 and self.parts[::2] == ("", "") else ""

    def text(self, values: Mapping[str, str]) -> str:
        """Return the text with values in the places of their parameters."""
        return "".join(values[part] if place % 2 else part for place, part in enumerate(self.parts))


def parse_template(text: str) -> Template:
    """Read a text.

    Raises:
        ValueError: `${{` begins no parameter; the message is a clause that follows the text.
    """
    parts = [""]
    end = 0
    for found in _PLACE.finditer(text):
        parts[-1] += text[end : found.start()]
        end = found.end()
        if found[1]:
            parts[-1] += OPENING
        elif found[2]:
            parts += [found[2], ""]
        else:
            raise ValueError(
                f"holds {text[found.start() : found.start() + 24]!r}, which is no parameter; "
                "write ${{ parameters.NAME }}, or $${{ for the text ${{"
            )
    parts[-1] += text[end:]
    return Template(tuple(parts))


def split_template(template: Template) -> tuple[Template, ...]:
    """Split a command into words, each of which is a template.

    Raises:
        ValueError: It cannot be split; see `split_words`.
    """
    coded = "".join(
        f"{_LETTER}1{place}{_LETTER}" if place % 2 else part.replace(_LETTER, f"{_LETTER}0")
        for place, part in enumerate(template.parts)
    )
    return tuple(_decoded(word, template.parts.__getitem__) for word in split_words(coded))


def _decoded(word: str, name: Callable[[int], str]) -> Template:
    parts = [""]
    end = 0
    for found in _CODED.finditer(word):
        parts[-1] += word[end : found.start()]
        end = found.end()
        if found[1]:
            parts += [name(int(found[1])), ""]
        else:
            parts[-1] += _LETTER
    parts[-1] += word[end:]
    return Template(tuple(parts))
