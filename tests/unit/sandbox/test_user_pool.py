"""Which user an agent gives to which attempt, and when it is another's: never before what it left was looked for."""

from random import Random

from edge_agent.sandbox.user_pool import UserPool


def pool(count: int = 65_536, ahead: int = 4) -> UserPool:
    found = UserPool(count)
    found.add(range(ahead))
    return found


def test_an_attempt_keeps_its_user_and_no_other_gets_it() -> None:
    ours = pool()
    assert [ours.take(name, 0.0) for name in ("a", "b", "a")] == [0, 1, 0]
    assert dict(ours.taken) == {"a": 0, "b": 1}
    assert [ours.take(name, 0.0) for name in ("c", "d", "e")] == [2, 3, None]


def test_one_that_ended_during_a_look_waits_for_the_next() -> None:
    """What it left may be in a place that the look has passed already."""
    ours = pool()
    for name in ("early", "late"):
        ours.take(name, 0.0)
    ours.end("early")
    first = ours.begin(1.0)
    ours.end("late")
    assert first == {0}
    assert ours.begin(2.0) == {1}
    assert ours.begin(3.0) == set()


def test_a_look_is_due_once_a_second_and_at_once_when_many_wait() -> None:
    ours = pool(640, 100)
    for number in range(40):
        ours.take(f"p.{number}", 0.0)
    ours.begin(0.0)
    ours.end("p.0")
    assert not ours.due(0.9)
    assert ours.due(1.0)
    for number in range(1, 11):
        ours.end(f"p.{number}")
    assert ours.crowded
    assert ours.due(0.1)
    assert len(ours.begin(0.1)) == 11
    assert not ours.crowded


def test_a_user_with_processes_comes_again_and_a_look_that_failed_is_made_again() -> None:
    ours = pool(65_536, 16)
    ours.take("a", 0.0)
    ours.end("a")
    ours.failed(ours.begin(0.0))
    assert ours.due(1.0)
    ours.stuck(ours.begin(1.0))
    ours.add([90])  # as many ahead as are wanted
    assert not ours.due(60.0)
    assert ours.due(61.0)
    assert ours.begin(61.0) == {0}


def test_as_many_are_ahead_as_are_taken_and_they_go_back_when_none_is() -> None:
    ours = UserPool(65_536)
    assert (ours.short(0.0), ours.block) == (0, 16)
    assert not ours.due(0.0), "an agent that runs nothing takes nothing"
    ours.add(range(1000))
    for number in range(500):
        ours.take(f"p.{number}", 0.0)
    assert ours.short(0.5) == 524, "1,024 are wanted, and fewer than half of them are left"
    assert ours.block == 500
    ours.begin(0.5)
    assert ours.short(0.5) == 0
    assert ours.surplus(59.9) == 0
    assert ours.due(60.0)
    assert ours.give_back(ours.surplus(60.0)) == list(range(999, 515, -1))
    assert ours.surplus(60.0) == 0
    assert ours.short(60.0) == 0


def test_more_are_claimed_once_half_of_what_is_wanted_is_gone() -> None:
    ours = pool(65_536, 400)
    claims = list[int]()
    for second in range(9):
        for number in range(100):
            assert ours.take(f"p.{second}.{number}", float(second)) is not None
        claims.append(ours.short(float(second)))
        ours.begin(float(second))
        ours.add(range(1000 * second, 1000 * second + claims[-1]))
    assert claims == [0, 0, 300] * 3


def test_where_there_are_few_none_is_kept_from_others() -> None:
    ours = UserPool(8)
    assert ours.block == 1
    ours.add([7])
    ours.take("a", 0.0)
    assert ours.short(0.0) == 0
    ours.end("a")
    assert ours.crowded


def test_no_user_is_ever_in_two_places() -> None:
    """Any order of what may happen, for many users; the registry is played by a set."""
    rng = Random(5)
    ours = UserPool(640)
    unclaimed, claimed = set(range(640)), set[int]()
    running: dict[str, int] = {}
    looks: list[frozenset[int]] = []
    now, let_go = 0.0, 0
    for step in range(20_000):
        now += rng.random() / 10
        match rng.randrange(6):
            case 0 | 1:
                uid = ours.take(f"p.{step}", now)
                if uid is None and unclaimed:
                    found = [unclaimed.pop() for _ in range(min(ours.block, len(unclaimed)))]
                    claimed |= set(found)
                    ours.add(found)
                elif uid is not None:
                    assert uid in claimed
                    assert uid not in running.values()
                    assert not any(uid in look for look in looks)
                    running[f"p.{step}"] = uid
            case 2 if len(running) > rng.randrange(100):
                name = rng.choice(sorted(running))
                ours.end(name)
                del running[name]
            case 4:
                looks.append(ours.begin(now))
            case 5 if looks:
                look = looks.pop(rng.randrange(len(looks)))
                stuck = {uid for uid in look if rng.random() < 0.1}
                back = set(look) - stuck | set(ours.give_back(ours.surplus(now)))
                ours.stuck(stuck)
                assert not back & set(running.values())
                claimed -= back
                unclaimed |= back
                let_go += len(back)
            case _:
                pass
    assert let_go > 1000


def test_users_are_reserved_only_where_enough_are_ahead_and_are_one_attempts_then() -> None:
    ours = pool(ahead=18)
    first, second = ours.reserve(), ours.reserve()
    assert first is not None
    assert second is not None
    assert ours.reserve() is None, "sixteen stay for those that come now"
    ours.grant("a", first, 0.0)
    assert ours.take("a", 0.0) == first
    others = {ours.take(f"b{number}", 0.0) for number in range(16)}
    assert not others & {first, second, None}
    assert ours.take("c", 0.0) is None
    ours.restore(second)
    assert ours.take("c", 0.0) == second
    ours.end("a")
    assert set(ours.ended) == {first}


def test_at_most_a_sixty_fourth_of_all_is_reserved() -> None:
    ours = pool(count=128, ahead=200)
    assert [ours.reserve() is None for _ in range(3)] == [False, False, True]
