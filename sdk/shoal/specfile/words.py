"""A command that is written as one text, split into the words that its program gets.

The rule is that of a shell, without a shell: blanks separate words, quotes and backslashes keep them
together. A shell takes the end of a line for the end of a command, and here there is one command, so
a line may end within quotes or after a backslash, and nowhere else.
"""

import re
import shlex

_CONTINUED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\(.)|\n|;(?=\s)""", re.DOTALL)


def split_words(text: str) -> tuple[str, ...]:
    """Split a command into words.

    Raises:
        ValueError: completes a sentence about the text: a quote is open, or it has several lines or
            commands.
    """
    lines = 1
    chained = False

    def joined(found: re.Match[str]) -> str:
        nonlocal lines, chained
        if found[1] == "\n":
            return " "
        lines += found[0] == "\n"
        chained = chained or found[0] == ";"
        return found[0]

    joined_text = _CONTINUED.sub(joined, text.strip())
    try:
        words = tuple(shlex.split(joined_text))
    except ValueError as error:
        raise ValueError(
            f"cannot be split into words ({error}); close it, or write a list"
        ) from None
    if chained:
        raise ValueError(
            "has two commands, and no shell runs it, so the first would get the second as words; "
            "write [sh, -c, '…'] to use a shell, or put the ; in quotes if it is meant"
        )
    if lines > 1:
        raise ValueError(
            f"has {lines} lines, and no shell runs it, so it would be one command with the words of "
            "all of them; for a script write a list whose last word is the text, run: [sh, -ec, TEXT], "
            "or end each line but the last with a backslash"
        )
    return words
