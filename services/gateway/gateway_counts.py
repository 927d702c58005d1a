"""What a gateway counts while it works: integers, which are read when a scrape comes."""

from collections import Counter
from dataclasses import dataclass, field

from services.metrics.distribution import Distribution

ANSWER_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds, inclusive."""


@dataclass(eq=False, slots=True)
class GatewayCounts:
    """Counts since the start.

    Attributes:
        calls: calls that were let in, by method of the contract or address.
        refused: what the gateway refused by itself, by reason.
        failed: calls that the controller did not answer well, by code.
        messages: messages of watches that were passed on.
        answers: how long the controller took for calls that are answered once.
    """

    calls: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    messages: int = 0
    answers: Distribution = field(default_factory=lambda: Distribution(ANSWER_BOUNDS))
