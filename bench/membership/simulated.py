"""Figures on the virtual clock: M3, M6, M7, M8, M9."""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

from bench.membership.figure import Figure
from services.membership.member import ChangeKind, MemberChange
from services.membership.preset import LAN, LOCAL, Preset
from tests.kit.network import Life, Network, Weather


class Deaths:
    """Counts verdicts as they fall, without keeping them."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.victims: set[str] = set()
        self.known: dict[str, int] = {}
        self.false = 0
        net.keep_changes = False
        net.watch = self.take

    def take(self, _now: float, _by: str, change: MemberChange) -> None:
        """Count one change."""
        if change.kind is not ChangeKind.DIED:
            return
        name = change.member.name
        if name in self.victims:
            self.known[name] = self.known.get(name, 0) + 1
        else:
            self.false += 1

    def crash(self, count: int) -> None:
        """Crash some members."""
        seats = self.net.seats[100 : 100 + count]
        self.victims = {seat.name for seat in seats}
        self.net.crash(*seats)

    def complete(self) -> bool:
        """Whether every living member knows every crash."""
        living = len(self.net.seats) - len(self.victims)
        return len(self.known) == len(self.victims) and all(
            count >= living for count in self.known.values()
        )


def m3(members: int, crashes: int) -> Iterator[Figure]:
    """Ten thousand members: speed, memory, one crash, many at once."""
    traces: list[str] = []
    for attempt in range(2):
        cpu, real = time.process_time(), time.perf_counter()
        net = Network(3)
        deaths = Deaths(net)
        net.add_acquainted(members)
        net.run(20)
        deaths.crash(1)
        start = net.now
        found = net.run_until(deaths.complete, 39.9)
        net.run(60 - net.now)
        traces.append(net.trace)
        if attempt:
            break
        spent = time.process_time() - cpu
        note = f"{members} members, {time.perf_counter() - real:.0f} s real"
        yield Figure("m3_cpu_seconds_for_60_virtual", spent, 60, note=note)
        taken = None if found is None else found - start
        yield Figure("m3_one_crash_known_seconds", taken, 19.5)
        yield Figure("m3_one_crash_false_positives", deaths.false, 0)
    yield Figure("m3_traces_that_differ", len(set(traces)) - 1, 0, note=traces[0])
    net = Network(4)
    deaths = Deaths(net)
    net.add_acquainted(members)
    net.run(2)
    deaths.crash(crashes)
    start, cpu = net.now, time.process_time()
    found = net.run_until(deaths.complete, 40)
    taken = None if found is None else found - start
    note = f"{crashes} at once, {time.process_time() - cpu:.0f} s CPU"
    yield Figure("m3_many_crashes_known_seconds", taken, 25, note=note)
    yield Figure("m3_many_crashes_false_positives", deaths.false, 0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Figure("m3_memory_gib", memory, 2)


def _lossy(seed: int) -> tuple[float, int]:
    """Seconds to converge under loss, and false verdicts in the five minutes after."""
    net = Network(seed, Weather(loss=0.3))
    first = net.add("n0").profile.address
    for index in range(1, 50):
        net.add(f"n{index}", options=lambda profile: replace(profile, seeds=(first,)))
    for seat in net.seats[1:]:
        net.join(seat, net.seats[0])
    found = net.run_until(lambda: net.acquainted(net.seats), 120)
    net.run(300)
    return 120.0 if found is None else found, len(net.died())


def m6() -> Iterator[Figure]:
    """30 % loss on everything, 50 members."""
    runs = [_lossy(seed) for seed in range(5)]
    converged = [seconds for seconds, _ in runs]
    note = f"5 seeds, median {statistics.median(converged):.1f}; memberlist not in 120 s"
    yield Figure("m6_converged_seconds_worst", max(converged), 15, note=note)
    yield Figure("m6_false_positives_in_5x5_min", sum(false for _, false in runs), 0)


def _starved(seed: int, *, lifeguard: bool) -> tuple[int, int]:
    """False verdicts about the well, and about the starved."""
    net = Network(seed)
    chance = random.Random(seed)
    seats = net.add_acquainted(20, options=lambda p: replace(p, lifeguard=lifeguard))
    slow = seats[:6]
    well = {seat.name for seat in seats[6:]}
    net.run(5)
    # 5 % of a core: 50 to 250 ms in one go, then nothing for 1 to 5 s. Whether timers or packets
    # come first on waking is chance, as it is for threads.
    wakes = {seat.index: chance.uniform(0.0, 3.0) for seat in slow}
    for seat in slow:
        net.freeze(seat)
    end = net.now + 600
    while net.now < end:
        for seat in slow:
            wakes[seat.index] -= 0.05
            if wakes[seat.index] > 0:
                continue
            if seat.life is Life.FROZEN:
                net.thaw(seat, timers_first=chance.random() < 0.5)
                wakes[seat.index] = chance.uniform(0.05, 0.25)
            else:
                net.freeze(seat)
                wakes[seat.index] = chance.uniform(1.0, 5.0)
        net.run(0.05)
    about = [name for _, _, name in net.died()]
    healthy = sum(name in well for name in about)
    return healthy, len(about) - healthy


def m7() -> Iterator[Figure]:
    """Members starved to 5 % of a core, and one true crash."""
    with_it = [_starved(seed, lifeguard=True) for seed in range(3)]
    without = [_starved(seed, lifeguard=False) for seed in range(3)]
    false_with = sum(healthy for healthy, _ in with_it)
    false_without = sum(healthy for healthy, _ in without)
    starved_with = sum(starved for _, starved in with_it)
    starved_without = sum(starved for _, starved in without)
    note = (
        f"about the well: {false_without} without, {false_with} with; "
        f"about the starved: {starved_without} and {starved_with} (simulated, 6 of 20, 3x10 min)"
    )
    yield Figure(
        "m7_times_fewer_false_positives",
        (false_without + starved_without) / max(1, false_with + starved_with),
        50,
        most=False,
        note=note,
    )
    worst = 0
    for seed in range(5):
        net = Network(seed)
        seats = net.add_acquainted(20)
        net.run(5)
        net.crash(seats[3])
        for _ in range(600):
            net.run(0.05)
            worst = max(worst, *(seat.swim.awareness for seat in seats if seat is not seats[3]))
    yield Figure("m7_worst_health_after_a_crash", worst, 0, note="memberlist 1 to 2")


def _split(seed: int) -> float:
    """Seconds to one view after a partition of five minutes."""
    net = Network(seed)
    seats = net.add_acquainted(40)
    cuts = net.cut(seats[:20], seats[20:])
    net.run(300)
    net.mend(cuts)
    start = net.now
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 120)
    return 120.0 if found is None else found - start


def m8() -> Iterator[Figure]:
    """A partition beyond reaping heals by itself."""
    healed = [_split(seed) for seed in range(5)]
    note = f"5 seeds, median {statistics.median(healed):.1f}; memberlist never"
    yield Figure("m8_healed_seconds_worst", max(healed), 30, note=note)


def _started(seed: int, count: int, preset: Preset, window: float) -> float:
    """Seconds to one view, of members started within `window` seconds."""
    net = Network(seed)
    first = net.add("n0", preset=preset)
    for index in range(1, count):
        net.join(net.add(f"n{index}", preset=preset), first)
        net.run(window / count)
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 60)
    return 60.0 if found is None else found


def _restarted(seed: int) -> float:
    """Seconds to one view after all but one, that remembers 100, restart at incarnation 1."""
    net = Network(seed)
    for index in range(30):
        net.add(f"n{index}", incarnation=100)
    for seat in net.seats[1:]:
        net.join(seat, net.seats[0])
    net.run(10)
    net.crash(*net.seats[1:])
    net.run(0.5)
    for seat in net.seats[1:]:
        net.restart(seat)
        net.join(seat, net.seats[0])
    start = net.now
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 60)
    return 60.0 if found is None else found - start


def m9() -> Iterator[Figure]:
    """Start-up of many, and a mass restart; the worst of three seeds."""
    seeds = range(3)
    worst = max(_started(seed, 200, LAN, 1.0) for seed in seeds)
    yield Figure("m9_200_started_within_1s_seconds", worst, 10, note="from the first start")
    worst = max(_started(seed, 30, LOCAL, 0.0) for seed in seeds)
    yield Figure("m9_30_local_seconds", worst, 2, note="memberlist 22.8 s")
    yield Figure("m9_all_restarted_at_1_seconds", max(map(_restarted, seeds)), 5)
