"""What a program prints, without the values of the secrets that it was given.

**Rule.** Each byte of a value becomes `*`, so that what is behind it stays where it was: pieces of a log
are told apart by their offsets, and are sent again by them. Line ends stay. In words (a reason, progress)
a value becomes `***`.

**What is a value here.** The value itself and, if it has several lines, its lines, since a key is often
printed line by line; and both as programs write them: base64 (with three alignments, as in
`base64(user:password)`), hexadecimal, percent-encoded, escaped as in JSON, in Python's repr and for a
shell. What a program makes of a value otherwise (half of it, reversed, its hash) is not found.

Of very long values the first `_LINES_MAX` lines of each kind are looked for by themselves, beside the whole.

**Borders.** What is read in pieces may hold a part of a value. So a piece is looked at with `margin` bytes on
either side of it, and a log that still grows ends before bytes with which a value may begin (`held`).
Example: of `token=s3cr` nothing of `s3cr` is sent while `et!1` may follow; once the program has ended it
is hidden as the beginning of one.

A value of less than `SHORTEST` bytes is not hidden: `1` would hide every 1.
"""

import base64
import json
import string
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from shoal.redaction import HIDDEN
from shoal.session.assignment import Assignment

SHORTEST: Final = 4
"""Values of fewer bytes are not hidden."""

_LINE_SHORTEST: Final = 8
_LINES_MAX: Final = 64
_ENCODED_SHORTEST: Final = 6
_STARS: Final = bytes(10 if byte == 10 else ord("*") for byte in range(256))  # fmt: skip
_FIRST_WHOLE: Final = (0, 2, 3)
"""Which character of base64 is the first that depends on nothing before a value, by how many bytes are there."""
_BLANKS: Final = string.whitespace.encode()


class SecretMask:
    """Hides values in bytes and words.

    Args:
        values: those to be hidden.
        unknown: whether there are others that are not known: then everything is hidden.
    """

    def __init__(self, values: Iterable[bytes] = (), *, unknown: bool = False) -> None:
        forms = {form for value in values for form in _forms(value)}
        # The longest first, so that words are replaced as a whole.
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._unknown = unknown
        self.margin = max(map(len, self._forms), default=1) - 1
        """How many bytes around a piece are to be looked at with it."""

    def __bool__(self) -> bool:
        """Whether there is anything to hide."""
        return bool(self._forms) or self._unknown

    def hide(self, data: bytes, *, ended: bool = False) -> bytes:
        """Return as many bytes, with `*` for those of values.

        Args:
            data: what is to be shown.
            ended: whether nothing follows it, so that a value may be cut off at its end.
        """
        hidden = bytearray(data)
        for begin, end in self.spans(data, ended=ended):
            hidden[begin:end] = data[begin:end].translate(_STARS)
        return bytes(hidden)

    def spans(self, data: bytes, *, ended: bool = False) -> Iterator[tuple[int, int]]:
        """Yield where values are, as (begin, end); they may overlap."""
        if self._unknown:
            yield 0, len(data)
            return
        for form in self._forms:
            done = 0
            at = data.find(form)
            while at >= 0:
                # What overlaps itself, as `aaaa` in a long row of them, costs its new bytes only.
                yield max(at, done), at + len(form)
                done = at + len(form)
                at = data.find(form, at + 1)
        if ended and (left := self.held(data)) >= SHORTEST:
            yield len(data) - left, len(data)

    def held(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a value."""
        most = 0
        for form in self._forms:
            end = data[-(len(form) - 1) :] if len(form) > 1 else b""
            at = end.find(form[:1])
            while at >= 0 and len(end) - at > most:
                if form.startswith(end[at:]):
                    most = len(end) - at
                    break
                at = end.find(form[:1], at + 1)
        return most

    def text(self, words: str) -> str:
        """Return words with `***` for each value."""
        if self._unknown:
            return HIDDEN if words else words
        said = words.encode("utf-8", "surrogateescape")
        for form in self._forms:
            said = said.replace(form, HIDDEN.encode())
        return said.decode("utf-8", "surrogateescape")


NO_MASK: Final = SecretMask()
"""Hides nothing."""


def mask_of(assignment: Assignment) -> SecretMask:
    """Return what hides the secrets of an attempt; all it says, where a value of its job is not known here."""
    if not assignment.job.secrets:
        return NO_MASK
    known = all(use.name in assignment.secrets for use in assignment.job.secrets)
    return SecretMask(assignment.secrets.values(), unknown=not known)


def _forms(value: bytes) -> Iterator[bytes]:
    """Yield everything as which a value may be printed."""
    core = value.strip(_BLANKS)
    if len(core) < SHORTEST:
        return
    lines = [line for one in core.splitlines() if len(line := one.strip(_BLANKS)) >= _LINE_SHORTEST]
    yield from {value, core, *lines[:_LINES_MAX]}
    for whole in {value, core}:
        yield from (form for form in _encoded(whole) if len(form) >= _ENCODED_SHORTEST)


def _encoded(value: bytes) -> Iterator[bytes]:
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value)
        for before, first in enumerate(_FIRST_WHOLE):
            last = (before + len(value)) * 8 // 6
            yield encode(bytes(before) + value)[first:last]
    # As base64(1) and MIME break it.
    lines = base64.encodebytes(value).split()
    yield from (line for line in lines[:_LINES_MAX] if len(line) >= _LINE_SHORTEST)
    for safe in ("", "/"):
        yield quote(value, safe=safe).encode()
        yield quote_plus(value, safe=safe).encode()
    yield value.replace(b"'", b"'\\''")
    yield repr(value)[2:-1].encode()
    text = value.decode("utf-8", "surrogateescape")
    yield repr(text)[1:-1].encode("utf-8", "surrogateescape")
    yield json.dumps(text)[1:-1].encode()
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape")
