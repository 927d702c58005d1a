"""Which nodes a list is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.model import no_strings
from shoal.text_pattern import text_fits
from shoal.view import NodeView


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """Which nodes are meant; the empty one means all.

    `name` is a part of the name, or a pattern of all of it with `*` or `?`. `labels` have these values, or any, where a
    value is empty. `connected` and `drained` say how it stands; None for either.
    """

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=no_strings)
    connected: bool | None = None
    drained: bool | None = None

    def matches(self, node: NodeView) -> bool:
        """Whether a node is meant as it is now."""
        return (
            text_fits(self.name, node.name)
            and self.connected in {None, node.connected}
            and self.drained in {None, node.drained}
            and all(
                key in node.labels and value in {"", node.labels[key]}
                for key, value in self.labels.items()
            )
        )


EVERY_NODE = NodeFilter()
"""Means all."""
