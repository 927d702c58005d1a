"""A public class of the product has its name alone, so that a reader need not ask which one is meant."""

import ast
from collections import defaultdict
from pathlib import Path

from tests.kit.tree import parsed, sources

PRODUCT = ("control", "edge_agent", "sdk", "services")
GENERATED = Path("sdk/shoal/v1")

TWO_ENDS = "job code stands alone, so that it has its own end of the port protocol"
TWO_PROCESSES = "the keeper stands alone, so that its requests are its own"

SHARED = {
    "Block": TWO_ENDS,
    "BlockError": TWO_ENDS,
    "BlockReader": TWO_ENDS,
    "Forget": TWO_PROCESSES,
    "LeaseRenewed": TWO_PROCESSES,
    "RingError": TWO_ENDS,
}
"""Names that two modules still share, and why."""


def test_no_public_class_has_the_name_of_another() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sources(*PRODUCT):
        if GENERATED in path.parents:
            continue
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path))
    twice = {name: paths for name, paths in found.items() if len(paths) > 1}
    new = {name: paths for name, paths in twice.items() if name not in SHARED}
    assert new == {}, "qualify the rarer one, or use one class"
    assert sorted(SHARED.keys() - twice.keys()) == [], "these are shared no more: take them out"
