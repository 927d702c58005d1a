"""Lives through many histories of the mesh, on every core: `make sim`.

`make sim SEEDS=10000` lives through so many, `make sim SECONDS=300` through as many as that time
allows, from a seed that is drawn and printed; `make sim SEED=17` through that one again, with the
trace of what happened if it fails.

With `SHAPES=1` a seed means another history: one of the pipelines of `shapes.py`, among faults that are
hard on streams. A seed without it means what it always did.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from random import SystemRandom
from typing import Protocol

from tests.simulation.mesh.apart import ApartError, run_apart
from tests.simulation.mesh.control_mutants import CONTROL_MUTANTS
from tests.simulation.mesh.mutants import MUTANTS, Mutant
from tests.simulation.mesh.shapes import SCALED, SHAPES
from tests.simulation.mesh.story import HARD_ON_SCALES, HARD_ON_STREAMS, SHORT_CUTS, Faults
from tests.simulation.mesh.world import Outcome, history

BATCH = 10
FAILURES_SHOWN = 5
SHORT_CUTS_EVERY = 5
"""Each so-many-th history has only faults that are shorter than the tolerance."""
ALL_MUTANTS = (*MUTANTS, *CONTROL_MUTANTS)
MUTANT_SEEDS = 400
MUTANT_BATCH = 4
LINES_SHOWN = 60


def live(seed: int, *, faults: Faults | None = None, lines: bool = False) -> Outcome:
    """Live through the history of a seed, and require of one with short faults that nothing is lost."""
    if faults is None:
        faults = SHORT_CUTS if seed % SHORT_CUTS_EVERY == 0 else Faults()
    outcome = history(seed, faults, lines=lines)
    if faults.nothing_is_lost and outcome.losses and not outcome.problem:
        outcome.problem = f"9: {outcome.losses} attempts were lost to faults within the tolerance"
    return outcome


def live_in_shape(seed: int, *, lines: bool = False) -> Outcome:
    """Live through the history of a seed in one of the pipelines of `shapes.py`."""
    every = SHAPES | SCALED
    name = list(every)[seed % len(every)]
    faults = HARD_ON_SCALES if name in SCALED else HARD_ON_STREAMS
    return history(seed, faults, given=every[name], lines=lines)


class Living(Protocol):
    """What a seed means: `live`, or `live_in_shape`."""

    def __call__(self, seed: int, *, lines: bool = False) -> Outcome:
        """Live through the history of a seed."""
        ...


def _batch(living: Living, seeds: list[int]) -> list[Outcome]:
    gc.disable()
    return [living(seed) for seed in seeds]


def _batches(seeds: Iterator[int], size: int = BATCH) -> Iterator[list[int]]:
    while batch := list(islice(seeds, size)):
        yield batch


def run(
    living: Living,
    first: int,
    seeds: int | None,
    seconds: float | None,
    jobs: int,
) -> int:
    """Live through histories; the exit status is 1 if one of them failed."""
    began = time.monotonic()
    numbers = count(first) if seeds is None else iter(range(first, first + seeds))
    outcomes: list[Outcome] = []
    failed: list[Outcome] = []
    told = began
    # A child for each batch, which ends without tidying up: see apart.py.
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        batches = _batches(numbers)
        under_way = [
            pool.apply_async(_batch, (living, batch)) for batch in islice(batches, 2 * jobs)
        ]
        while under_way:
            found = under_way.pop(0).get()
            outcomes += found
            for one in found:
                if one.problem:
                    failed.append(one)
                    print(f"  seed {one.seed} FAILED: {_last_line(one.problem)}", flush=True)
            passed = time.monotonic() - began
            going = len(failed) < FAILURES_SHOWN
            if going and (seconds is None or passed < seconds):
                under_way += [
                    pool.apply_async(_batch, (living, batch)) for batch in islice(batches, 1)
                ]
            if time.monotonic() - told > 20:
                told = time.monotonic()
                rate = len(outcomes) / passed
                print(f"  {len(outcomes)} histories, {rate:.1f} a second, {len(failed)} failed")
                sys.stdout.flush()
    _table(outcomes, time.monotonic() - began, jobs)
    again = "make sim SHAPES=1" if living is live_in_shape else "make sim"
    for outcome in failed[:FAILURES_SHOWN]:
        print(f"\nseed {outcome.seed} FAILED; replay it with: {again} SEED={outcome.seed}")
        print(outcome.problem)
    return 1 if failed else 0


def _table(outcomes: list[Outcome], seconds: float, jobs: int) -> None:
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts.update(outcome.counts)
    virtual = sum(outcome.seconds for outcome in outcomes)
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    for name, number in sorted(counts.items()):
        print(f"  {name:<24} {number:>8}")
    print(
        f"{len(outcomes)} histories in {seconds:.0f} s on {jobs} processes "
        f"({len(outcomes) / max(seconds, 1e-9):.1f} a second), {virtual / 3600:.1f} virtual hours, "
        f"{sum(outcome.callbacks for outcome in outcomes):,} callbacks, {failed} failed"
    )


def replay(living: Living, seed: int) -> int:
    """Live through one history twice, and show its trace if it fails."""
    outcome = run_apart(lambda: living(seed, lines=True))
    again = run_apart(lambda: living(seed))
    print(
        f"seed {seed}: trace {outcome.trace}, again {again.trace}, {outcome.seconds:.1f} virtual s"
    )
    if outcome.trace != again.trace:
        print("the same seed gave two histories")
        return 1
    if not outcome.problem:
        print("nothing wrong")
        return 0
    print("\n".join(outcome.lines[-LINES_SHOWN:]))
    print(outcome.problem)
    return 1


def mutants(names: list[str], jobs: int) -> int:
    """Plant each mistake, and require that a history finds it."""
    chosen = [one for one in ALL_MUTANTS if one.name in names] if names else MUTANTS
    missed = 0
    for mutant in chosen:
        began = time.monotonic()
        seed, problem = _caught(mutant, jobs)
        taken = time.monotonic() - began
        if seed is None:
            missed += 1
            print(f"{mutant.name:<34} NOT CAUGHT in {MUTANT_SEEDS} histories  {taken:6.1f} s")
        else:
            print(f"{mutant.name:<34} caught by seed {seed:<5} {taken:6.1f} s  {problem}")
        sys.stdout.flush()
    print(f"{len(chosen) - missed} of {len(chosen)} planted mistakes are caught")
    return 1 if missed else 0


def _caught(mutant: Mutant, jobs: int) -> tuple[int | None, str]:
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        found = [
            pool.apply_async(_mutated, (mutant.name, batch))
            for batch in _batches(iter(range(MUTANT_SEEDS)), MUTANT_BATCH)
        ]
        for one in found:
            for outcome in one.get():
                if outcome.problem:
                    pool.terminate()
                    return outcome.seed, _last_line(outcome.problem)
    return None, ""


def _mutated(name: str, seeds: list[int]) -> list[Outcome]:
    mutant = next(one for one in ALL_MUTANTS if one.name == name)
    mutant.plant()
    outcomes: list[Outcome] = []
    gc.disable()
    for seed in seeds:
        outcomes.append(live(seed, faults=mutant.faults))
        if outcomes[-1].problem:
            break
    return outcomes


def _last_line(problem: str) -> str:
    """The line that names what was found."""
    lines = [line for line in problem.splitlines() if "Error: " in line and line[0] != " "]
    return lines[-1].rpartition("Error: ")[2][:100] if lines else problem[:100]


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many histories")
    parser.add_argument("--first", type=int, help="the first seed; drawn if it is not given")
    parser.add_argument("--seed", type=int, help="live through this one again")
    parser.add_argument("--seconds", type=float, help="for how long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--mutants", nargs="*", help="plant the twelve mistakes, or those of these names"
    )
    parser.add_argument(
        "--shapes", action="store_true", help="take the pipelines of shapes.py; see above"
    )
    given = parser.parse_args()
    living: Living = live_in_shape if given.shapes else live
    if given.seed is not None:
        try:
            return replay(living, given.seed)
        except ApartError as error:
            print(error)
            return 1
    if given.mutants is not None:
        return mutants(given.mutants, given.jobs)
    first = SystemRandom().randrange(1_000_000_000) if given.first is None else given.first
    if given.seeds is not None and given.first is None:
        first = 0
    print(f"histories from seed {first} on")
    return run(living, first, given.seeds, given.seconds, given.jobs)


if __name__ == "__main__":
    sys.exit(main())
