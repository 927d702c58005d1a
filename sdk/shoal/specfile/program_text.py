"""Which words of a command an interpreter reads as a program.

Theory. A word keeps its ends whatever is put into it, but a program within a word has words of its own:
in `sh -c 'ls DIR'` a DIR of `x; reboot` is a second command. Quotes around a value cannot be right in
general, since the program may have quotes around its place. So a text is refused there, and goes in
as a word or a variable of its own.

Rule. Some word names an interpreter, wherever it stands (`env A=1 bash -c …`). Behind it come options,
up to the first word that is none. One of them may ask for a program: the rest of its word, or the next
word; for a shell, the first word that is no option. Words that an option takes along are passed over.
What other programs do with their words is their own affair.

Example: `bash -euo pipefail -c TEXT` has a program at TEXT; `python -m tool -c FILE` has none. Sources:
sh(1p), bash(1), python(1), perl(1), node(1), awk(1p), sed(1), env(1).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """Letters of options, and long options.

    `asking` ones are followed by a program, `taking` ones by another word, and `ending` ones are the
    last. With `flag`, an asking one says that the first word that is no option is the program. With
    `first`, that word is the program unless `asking` or `file` options came. With `mixed`, options
    may come behind other words.
    """

    asking: str = ""
    taking: str = ""
    ending: str = ""
    file: str = ""
    flag: bool = False
    first: bool = False
    mixed: bool = False
    asking_long: tuple[str, ...] = ()
    taking_long: tuple[str, ...] = ()


_SHELL = _Interpreter(
    asking="c", taking="oO", flag=True, taking_long=("--rcfile", "--init-file", "--emulate")
)
_SHELLS = ("sh", "ash", "bash", "dash", "ksh", "mksh", "rbash", "zsh")
_AWK = _Interpreter(asking="e", taking="Fvfi", file="f", first=True, asking_long=("--source",))
_INTERPRETERS: Mapping[str, _Interpreter] = MappingProxyType({
    **dict.fromkeys(_SHELLS, _SHELL),
    "fish": _Interpreter(asking="cC", asking_long=("--command", "--init-command")),
    **dict.fromkeys(("python", "pypy"), _Interpreter(asking="c", taking="WXm", ending="cm")),
    "perl": _Interpreter(asking="eE", taking="I"),
    "ruby": _Interpreter(asking="e", taking="Ir"),
    "lua": _Interpreter(asking="e", taking="l"),
    "php": _Interpreter(asking="rBRE", taking="cdz"),
    "node": _Interpreter(
        asking="ep", taking="rC", asking_long=("--eval", "--print"),
        taking_long=("--require", "--import", "--conditions"),
    ),
    "Rscript": _Interpreter(asking="e"),
    "julia": _Interpreter(asking="eE", asking_long=("--eval", "--print")),
    "env": _Interpreter(asking="S", taking="uC", asking_long=("--split-string",)),
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), _AWK),
    "sed": _Interpreter(
        asking="e", taking="fl", file="f", first=True, mixed=True, asking_long=("--expression",),
        taking_long=("--file", "--line-length"),
    ),
})  # fmt: skip
_EVERY_WORD = frozenset({"ssh", "su", "runuser", "watch"})
"""They make a command for a shell of all their words. As words of others their names are common."""
_BEFORE = frozenset({"doas", "env", "nice", "nohup", "setsid", "stdbuf", "sudo", "timeout"})
"""What they run is behind them."""
_VERSION = re.compile(r"[0-9.]+$")


def program_words(words: Sequence[str]) -> frozenset[int]:
    """Return the places of the words that an interpreter reads as a program, or as a part of one."""
    return frozenset(place for start in range(len(words)) for place in _behind(words, start))


def _behind(words: Sequence[str], start: int) -> Iterator[int]:
    """Yield the places of programs of the interpreter at `start`, if there is one."""
    name = PurePosixPath(words[start]).name
    if name in _EVERY_WORD and (start == 0 or PurePosixPath(words[0]).name in _BEFORE):
        yield from range(start + 1, len(words))
    interpreter = _INTERPRETERS.get(_VERSION.sub("", name))
    if interpreter is None:
        return
    wanted = interpreter.first  # whether the first word that is no option is a program
    others: list[int] = []  # words that are no options
    place = start + 1
    while place < len(words):
        here, word = place, words[place]
        if len(word) < 2 or word[0] not in "-+":
            if not interpreter.mixed:
                break
            others.append(here)
            place += 1
            continue
        place += 1
        if word == "--":
            break
        if word.startswith("--"):
            option, equals, _ = word.partition("=")
            if option in interpreter.asking_long:
                wanted = False
                yield here if equals else place
                place += not equals
            elif option in interpreter.taking_long:
                wanted = wanted and option != "--file"
                place += not equals
            continue
        for end, letter in enumerate(word[1:], 2):
            if letter in interpreter.asking and interpreter.flag:
                wanted = True
                continue
            if letter not in interpreter.asking and letter not in interpreter.taking:
                continue
            attached = len(word) > end and not interpreter.flag
            if letter in interpreter.asking:
                yield here if attached else place
            if letter in interpreter.asking + interpreter.file:
                wanted = False
            place += not attached
            if letter in interpreter.ending:
                return
            if not interpreter.flag:
                break
    if wanted:
        yield others[0] if others else place
