"""What the sink of a chaos run wrote down, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive records `first` to `next - 1`; -1 and -1 for a record with the wrong content."""

    first: int
    next: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """The file of one attempt of the sink."""

    epoch: int
    runs: tuple[Run, ...]
    ended: bool
    """Whether the attempt came to the end of its stream."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many records the attempt that was committed had, and what is wrong in any attempt's file."""

    records: int
    lost: int
    repeated: int
    out_of_order: int
    made_up: int

    @property
    def intact(self) -> bool:
        """Whether every record came once and in order."""
        return not (self.lost or self.repeated or self.out_of_order or self.made_up)


def read_ledgers(paths: Iterable[Path]) -> list[Ledger]:
    """Read the files of all attempts, oldest first; a line that a kill cut off is left out."""
    return sorted((_read(path) for path in paths), key=lambda ledger: ledger.epoch)


def judge(ledgers: Sequence[Ledger], count: int) -> Verdict:
    """Compare what came with the numbers below `count`.

    An attempt that was killed may have seen only a beginning; within it the same rules hold.

    Raises:
        ValueError: Not exactly the last attempt came to the end of its stream.
    """
    ended = [ledger for ledger in ledgers if ledger.ended]
    if not ended or ended[-1] is not ledgers[-1]:
        raise ValueError("the last attempt of the sink did not come to the end of its stream")
    verdicts = [_judge(ledger.runs, count if ledger is ledgers[-1] else None) for ledger in ledgers]
    return Verdict(
        records=verdicts[-1].records,
        lost=sum(one.lost for one in verdicts),
        repeated=sum(one.repeated for one in verdicts),
        out_of_order=sum(one.out_of_order for one in verdicts),
        made_up=sum(one.made_up for one in verdicts),
    )


def _judge(runs: Sequence[Run], count: int | None) -> Verdict:
    records = repeated = out_of_order = made_up = 0
    seen: list[Run] = []
    highest = 0
    for run in runs:
        if run.first < 0:
            made_up += 1
            continue
        records += run.next - run.first
        again = sum(max(0, min(run.next, one.next) - max(run.first, one.first)) for one in seen)
        repeated += again
        out_of_order += max(0, min(run.next, highest) - run.first) - again
        if count is not None:
            made_up += max(0, run.next - max(run.first, count))
        seen = _joined(seen, run)
        highest = max(highest, run.next)
    last = max((one.next for one in seen), default=0) if count is None else count
    return Verdict(
        records=records,
        lost=last - sum(min(one.next, last) - min(one.first, last) for one in seen),
        repeated=repeated,
        out_of_order=out_of_order,
        made_up=made_up,
    )


def _joined(runs: Sequence[Run], run: Run) -> list[Run]:
    """Add a run to runs that are apart and in order."""
    apart = [one for one in runs if one.next < run.first or one.first > run.next]
    touching = [one for one in runs if one not in apart]
    whole = Run(
        min([run.first, *(one.first for one in touching)]),
        max([run.next, *(one.next for one in touching)]),
    )
    return sorted([*apart, whole], key=lambda one: one.first)


def _read(path: Path) -> Ledger:
    text = path.read_text()
    lines = text.splitlines()
    if not text.endswith("\n"):
        del lines[-1:]
    ended = bool(lines) and lines[-1] == "end"
    runs = [line.split() for line in lines if line != "end"]
    return Ledger(
        int(path.suffix[1:]), tuple(Run(int(first), int(after)) for first, after, _ in runs), ended
    )
