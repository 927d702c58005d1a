"""Whole clusters on a virtual clock."""

from dataclasses import replace

import pytest

from services.membership.message import Address, SwimState
from services.membership.preset import LAN, LOCAL
from tests.kit.network import Network, Weather

DEAD, LEFT, ALIVE = SwimState.DEAD, SwimState.LEFT, SwimState.ALIVE
SEEDS = [1, 2, 3]


def cluster(net: Network, count: int) -> None:
    net.add_joined(count)
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 30)
    assert found is not None, f"seed {net.seed}: never converged"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_forms_and_stays(seed: int) -> None:
    net = Network(seed)
    cluster(net, 30)
    net.run(120)

    assert net.agree(net.seats, net.seats)
    assert net.died() == []
    assert all(seat.swim.awareness == 0 for seat in net.seats)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_crash_is_known_to_all_and_leaves_health_alone(seed: int) -> None:
    net = Network(seed)
    cluster(net, 30)
    net.run(5)
    victim = net.seats[7]
    net.crash(victim)
    start = net.now
    found = net.run_until(lambda: net.all_hold(net.running(), "n7", DEAD), 60)

    assert found is not None
    # Somebody probes it within a few seconds, then the shortest suspicion for 30 members.
    assert found - start < LAN.suspicion_min_seconds(30) + 8
    assert {name for _, _, name in net.died()} == {"n7"}
    assert all(seat.swim.awareness == 0 for seat in net.running())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leaver_is_left_and_nobody_fails(seed: int) -> None:
    net = Network(seed)
    cluster(net, 20)
    leaver = net.seats[3]
    net.leave(leaver)
    others = [seat for seat in net.seats if seat is not leaver]

    assert net.run_until(lambda: net.all_hold(others, "n3", LEFT), 10) is not None
    assert net.run_until(lambda: leaver.departed, 10) is not None
    net.crash(leaver)
    net.run(60)
    assert net.died() == []
    assert net.agree(others, others)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_freeze_kills_nobody(seed: int) -> None:
    net = Network(seed)
    cluster(net, 20)
    frozen = net.seats[5]
    net.freeze(frozen)
    net.run(3.5)
    net.thaw(frozen)

    assert net.run_until(lambda: net.agree(net.seats, net.seats), 10) is not None
    assert net.died() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_loss_of_a_third_converges_and_accuses_nobody_to_death(seed: int) -> None:
    net = Network(seed, Weather(loss=0.3))
    seed_address = net.add("n0").profile.address
    for index in range(1, 50):
        net.add(f"n{index}", options=lambda p: replace(p, seeds=(seed_address,)))
    for seat in net.seats[1:]:
        net.join(seat, net.seats[0])
    # Suspicions come and go under such loss; converged is when everybody knows everybody.
    found = net.run_until(lambda: net.acquainted(net.seats), 15)
    assert found is not None
    net.run(300)

    assert net.died() == []


def test_duplicates_and_reordering_change_nothing() -> None:
    net = Network(4, Weather(delay_seconds=0.001, jitter_seconds=0.2, duplication=0.5))
    cluster(net, 20)
    net.run(60)

    assert net.died() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_partition_beyond_reaping_heals_by_itself(seed: int) -> None:
    net = Network(seed)
    cluster(net, 40)
    here, there = net.seats[:20], net.seats[20:]
    cuts = net.cut(here, there)
    net.run(300)
    assert net.agree(here, here)
    assert net.agree(there, there)
    net.mend(cuts)
    start = net.now
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 60)

    assert found is not None
    assert found - start <= 30


def test_a_one_way_cut_is_overcome_through_others() -> None:
    net = Network(6)
    cluster(net, 12)
    net.cut(net.seats[:1], net.seats[1:2], both_ways=False, packets_only=True)
    net.run(120)

    assert net.died() == []


def test_a_clogged_link_that_opens_does_no_harm() -> None:
    net = Network(7)
    cluster(net, 12)
    cuts = net.cut(net.seats[:6], net.seats[6:], clogged=True, packets_only=True)
    net.run(3)
    net.mend(cuts)
    net.run(30)

    assert net.agree(net.seats, net.seats)
    assert net.died() == []


def test_drifting_clocks_are_tolerated() -> None:
    net = Network(8)
    for index in range(20):
        net.add(f"n{index}", drift=(index - 10) / 100)
    for seat in net.seats[1:]:
        net.join(seat, net.seats[0])
    net.run(120)

    assert net.agree(net.seats, net.seats)
    assert net.died() == []


@pytest.mark.parametrize("incarnation", [1, 1000])
def test_a_mass_restart_at_incarnation_1_is_believed(incarnation: int) -> None:
    net = Network(9)
    net.add_joined(30, incarnation=incarnation)
    net.run(10)
    restarted = net.seats[:29]
    net.crash(*restarted)
    net.run(0.5)
    for seat in restarted:
        net.restart(seat)
        net.join(seat, net.seats[29])
    start = net.now
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 30)

    assert found is not None
    assert found - start <= 5


def test_a_node_comes_back_under_a_new_address() -> None:
    net = Network(10)
    cluster(net, 10)
    old = net.seats[4]
    net.crash(old)
    net.run_until(lambda: net.all_hold(net.running(), "n4", DEAD), 30)
    net.restart(old, incarnation=500, address=Address("10.99.0.1", 7946))
    net.join(old, net.seats[0])
    start = net.now
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 30)

    assert found is not None
    assert found - start <= 5
    member = net.seats[0].swim.states.table.get("n4")
    assert member is not None
    assert member.address == "10.99.0.1"


def test_the_same_seed_gives_the_same_trace() -> None:
    traces: list[str] = []
    for seed in (1, 1, 2):
        net = Network(seed, Weather(loss=0.1))
        net.add_acquainted(60)
        net.run(20)
        net.crash(net.seats[3])
        net.run(20)
        traces.append(net.trace)

    assert traces[0] == traces[1] != traces[2]


def test_local_preset_forms_quickly() -> None:
    net = Network(11)
    net.add_joined(30, preset=LOCAL)
    found = net.run_until(lambda: net.agree(net.seats, net.seats), 30)

    assert found is not None
    assert found <= 2


def test_no_member_probes_more_than_its_share() -> None:
    """E10: constant load, whatever the number of members."""
    counts: list[float] = []
    for size in (50, 500):
        net = Network(12)
        seats = net.add_acquainted(size, options=lambda p: replace(p, heal_interval_seconds=0))
        net.run(10)
        before = [seat.packets_sent for seat in seats]
        net.run(10)
        counts.append(
            max(seat.packets_sent - b for seat, b in zip(seats, before, strict=True)) / 10
        )

    assert all(count <= 4 for count in counts)
