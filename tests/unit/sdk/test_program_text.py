"""Which words an interpreter reads as a program, by the options of each."""

import shlex

import pytest

from shoal.specfile.program_text import program_words


@pytest.mark.parametrize(
    ("command", "programs"),
    [
        ("sh -c TEXT sh a", "TEXT"),
        ("/usr/bin/bash -lc TEXT", "TEXT"),
        ("bash -euo pipefail -c TEXT a", "TEXT"),
        ("bash --norc --rcfile f -c TEXT", "TEXT"),
        ("bash +x -c -- TEXT a", "TEXT"),
        ("sh -c -e TEXT", "TEXT"),
        ("sh script.sh -c a", ""),
        ("sh", ""),
        ("sh -c", ""),
        ("env -u A B=1 sh -c TEXT", "TEXT"),
        ("env -S TEXT", "TEXT"),
        ("env --split-string=TEXT a", "--split-string=TEXT"),
        ("timeout 5 busybox sh -c TEXT", "TEXT"),
        ("xargs -n 1 sh -c TEXT", "TEXT"),
        ("python -c TEXT -c a", "TEXT"),
        ("python3.11 -I -W ignore -cTEXT a", "-cTEXT"),
        ("python -m tool -c a", ""),
        ("python tool.py -c a", ""),
        ("perl -ne TEXT file", "TEXT"),
        ("perl -e TEXT -e MORE file", "TEXT MORE"),
        ("node --require a -e TEXT", "TEXT"),
        ("node --eval=TEXT", "--eval=TEXT"),
        ("ruby -rjson -e TEXT", "TEXT"),
        ("awk TEXT file", "TEXT"),
        ("awk -F, -v n=1 TEXT file", "TEXT"),
        ("gawk -F , -f prog.awk data", ""),
        ("sed -n TEXT file", "TEXT"),
        ("sed -e TEXT -e MORE file", "TEXT MORE"),
        ("sed --expression TEXT file", "TEXT"),
        ("sed -f prog.sed file", ""),
        ("sed p file -e TEXT", "TEXT"),
        ("sed -n -- TEXT file", "TEXT"),
        ("ssh -p 22 board ls", "-p 22 board ls"),
        ("timeout 5 ssh board ls", "board ls"),
        ("python tool.py watch folder", ""),
        ("head -c 20 file", ""),
        ("gcc -c a.c", ""),
    ],
)
def test_programs_within_words(command: str, programs: str) -> None:
    words = shlex.split(command)
    found = sorted(place for place in program_words(words) if place < len(words))
    assert [words[place] for place in found] == programs.split()
