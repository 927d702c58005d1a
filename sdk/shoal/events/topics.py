"""Which topics carry what; docs/mqtt.md has all of them."""

from typing import Final

UPDATES: Final = "Updates"
"""What a pipeline with `compat: {updates_topic: true}` tells."""


def events_of(namespace: str = "default", pipeline: str = "+") -> tuple[str, ...]:
    """Return the topics with every event of pipelines and of their jobs; `+` stands for any."""
    return tuple(f"{root}/events" for root in _subjects(namespace, pipeline))


def states_of(namespace: str = "default", pipeline: str = "+") -> tuple[str, ...]:
    """Return the topics that retain the last event of each pipeline and of each of their jobs."""
    return tuple(f"{root}/state" for root in _subjects(namespace, pipeline))


def _subjects(namespace: str, pipeline: str) -> tuple[str, str]:
    root = f"shoal/{namespace}/pipelines/{pipeline}"
    return root, f"{root}/jobs/+"
