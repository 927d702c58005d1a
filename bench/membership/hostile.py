"""M10: hostile packets and streams against the whole receive path."""

from __future__ import annotations

import gc
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator

from bench.membership.figure import Figure
from services.membership.codec import MessageCodec
from services.membership.events import PacketReceived
from services.membership.keyring import Keyring
from services.membership.machine import SwimMachine
from services.membership.message import Address, User
from services.membership.packet import PacketFormat, compound
from services.membership.preset import LAN
from services.membership.profile import Profile
from services.membership.refusal import RefusedError
from services.membership.serf.machine import SerfMachine
from services.membership.stream import ParserStop, StreamParser

_SEEDS = [
    bytes.fromhex(text)
    for text in (
        (
            "0cc76f89ab0702005100130486a441646472a47f000009ab496e6361726e6174696f6e01a44d657461b6"
            "ff82a4726f6c65a465646765a5626f617264a3747832a44e6f6465a3707931a4506f7274cd1f0aa35673"
            "6ea6010502020504080182a54c54696d6502a44e6f6465a3707931"
        ),
        (
            "0085a44e6f6465a3707931a55365714e6f02aa536f7572636541646472a47f000003aa536f757263654e"
            "6f6465a57365726642aa536f75726365506f7274cd1f0a"
        ),
        (
            "0486a441646472a47f000009ab496e6361726e6174696f6e01a44d657461b6ff82a4726f6c65a4656467"
            "65a5626f617264a3747832a44e6f6465a3707932a4506f7274cd1f0aa356736ea6010502020504"
        ),
        "0282a75061796c6f6164c0a55365714e6f01",
        "078000000000000000000000",
        "0982a4416c676f00a3427566a700e9a029032200",
        "0383ab496e6361726e6174696f6e01a44e6f6465a3707931a446726f6da3707932",
        "0583ab496e6361726e6174696f6e01a44e6f6465a3707931a446726f6da3707931",
        "0883a54c54696d6502a44e6f6465a3707931",
        "0683a54e6f64657301ac5573657253746174654c656e00a44a6f696ec3",
    )
]


def _mutant(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(_SEEDS))
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(data)) if data else 0
        kind = rng.random()
        if kind < 0.5 and data:
            data[place] = rng.randrange(256)
        elif kind < 0.7:
            data[place:place] = rng.randbytes(rng.randrange(1, 6))
        elif kind < 0.85:
            del data[place : place + rng.randrange(1, 6)]
        elif kind < 0.95:
            data = bytearray(compound([bytes(data)] * rng.randrange(1, 4)))
        else:
            data = bytearray(rng.randbytes(rng.randrange(200)))
    return bytes(data)


def m10(packets: int, streams: int) -> Iterator[Figure]:
    """Throw mutated packets at a member, and mutated streams at a parser."""
    # As a long-lived process does: a full collection over all modules takes 15 ms by itself.
    gc.collect()
    gc.freeze()
    rng = random.Random(10)
    codec, keyring = MessageCodec(), Keyring()
    form = PacketFormat(codec, keyring, nonce=rng.randbytes)
    profile = Profile(name="py1", address=Address("10.0.0.1", 7946))
    swim = SwimMachine(profile, rng, 0.0)
    node = SerfMachine(swim, keyring, LAN, rng)
    reasons: Counter[str] = Counter()
    source = Address("10.0.0.2", 7946)
    escaped = worst = slow = 0
    now = 0.0
    memory = 0
    for index in range(packets):
        if index == packets // 10:
            gc.collect()
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = _mutant(rng)
        start = time.thread_time_ns()
        try:
            messages, refused, sealed = form.unwrap(data)
            reasons.update(refused)
            node.handle(PacketReceived(source, messages, sealed), now)
            reasons["read"] += sum(not isinstance(message, User) for message in messages)
        except RefusedError as error:
            reasons[error.reason] += 1
        except Exception as error:  # noqa: BLE001 the figure counts them
            escaped += 1
            reasons[f"escaped {error!r}"] += 1
        taken = time.thread_time_ns() - start
        worst = max(worst, taken)
        slow += taken > 5_000_000
        now += 0.001
        deadline = node.deadline()
        if deadline is not None and deadline <= now:
            node.tick(now)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    note = f"{packets} packets, worst {worst / 1e6:.2f} ms; {dict(reasons.most_common(6))}"
    yield Figure("m10_exceptions_escaped", escaped, 0, note=note)
    yield Figure("m10_packets_over_5_ms", slow, 0)
    yield Figure("m10_memory_grown_mb", grown, 64)
    escaped = 0
    for _ in range(streams):
        parser = StreamParser(keyring, b"", dialled=rng.random() < 0.5)
        data = _mutant(rng)
        fed = 0
        try:
            while (pause := parser.work()) is not None:
                if pause is ParserStop.DATA:
                    parser.feed(data[fed : fed + 40])
                    fed += 40
        except RefusedError:
            pass
        except Exception:  # noqa: BLE001 the figure counts them
            escaped += 1
    yield Figure("m10_stream_exceptions_escaped", escaped, 0, note=f"{streams} streams")
