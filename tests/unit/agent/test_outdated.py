"""B1: which of keeper and stream worker are not what the agent would start, in words with the remedy."""

import pytest

from edge_agent.outdated import Outdated

NOW = "2.0 --streams 0.0.0.0:7947 --advertise 10.0.0.1"


@pytest.mark.parametrize(
    ("keeper", "made", "old", "words"),
    [
        ("2.0", NOW, (False, False), ""),
        ("2.0", None, (False, False), ""),
        ("1.0", NOW, (True, False), "its keeper is of version 1.0 and its agent of 2.0"),
        ("", NOW, (True, False), "its keeper is of version unknown and its agent of 2.0"),
        ("2.0", "", (False, True), "its stream worker runs with settings that are not known"),
        (
            "2.0",
            NOW.replace("7947", "7950"),
            (False, True),
            "runs with '2.0 --streams 0.0.0.0:7950 --advertise 10.0.0.1' and not '2.0 --streams",
        ),
        ("1.0", NOW.replace("2.0", "1.0"), (True, True), ", and its stream worker runs with '1.0"),
    ],
)
def test_b1_what_is_old_is_said_with_the_remedy(
    keeper: str, made: str | None, old: tuple[bool, bool], words: str
) -> None:
    found = Outdated.of("2.0", keeper, NOW, made)
    assert (found.keeper, found.stream_worker) == old
    assert words in found.sentence
    assert bool(found.sentence) == any(old)
    if found.sentence:
        assert "`shoal drain` the node" in found.sentence
        assert "`shoal agent --down`, which ends its jobs" in found.sentence
    if found.keeper:
        assert "replaced once no attempt is there" in found.sentence
