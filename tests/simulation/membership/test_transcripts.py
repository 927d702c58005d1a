"""The famous cases as readable files: what every member says, line by line.

A change of behaviour shows as a change of these files. Write them anew with
`SHOAL_WRITE_TRANSCRIPTS=1`, and read the difference before committing it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.membership.message import Address
from tests.kit.network import Network, Weather

FOLDER = Path(__file__).parent / "transcripts"


def small(seed: int, count: int = 5) -> Network:
    net = Network(seed, Weather(), transcribe=True)
    net.add_joined(count)
    net.run(3)
    say(net, "all are acquainted")
    return net


def say(net: Network, line: str) -> None:
    assert net.transcript is not None
    net.transcript.append(f"{net.now:9.3f} -- {line}")


def crash() -> Network:
    net = small(1)
    net.crash(net.seats[2])
    say(net, "n2 crashes")
    net.run(20)
    return net


def freeze_and_refute() -> Network:
    net = small(2)
    net.freeze(net.seats[3])
    say(net, "n3 is stopped")
    net.run(3.5)
    net.thaw(net.seats[3])
    say(net, "n3 goes on")
    net.run(10)
    return net


def goodbye() -> Network:
    net = small(3)
    net.leave(net.seats[4])
    say(net, "n4 leaves")
    net.run(5)
    return net


def partition_and_heal() -> Network:
    net = small(4, 6)
    cuts = net.cut(net.seats[:3], net.seats[3:])
    say(net, "n0 to n2 are cut off from n3 to n5")
    net.run(120)
    net.mend(cuts)
    say(net, "the network is whole again")
    net.run(30)
    return net


def new_address() -> Network:
    net = small(5)
    net.crash(net.seats[1])
    say(net, "n1 crashes")
    net.run(1)
    net.restart(net.seats[1], incarnation=100, address=Address("10.9.9.9", 7946))
    net.join(net.seats[1], net.seats[0])
    say(net, "n1 comes back under another address")
    net.run(15)
    return net


@pytest.mark.parametrize(
    "case", [crash, freeze_and_refute, goodbye, partition_and_heal, new_address]
)
def test_transcript(case: Callable[[], Network]) -> None:
    net = case()
    assert net.transcript is not None
    said = "\n".join(net.transcript) + "\n"
    path = FOLDER / f"{case.__name__}.txt"
    if os.environ.get("SHOAL_WRITE_TRANSCRIPTS"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(said)

    assert said == path.read_text()
