"""Facts of a node between `shoal.node_facts` and the contract.

They are hearsay of a peer and decide nothing: a word that is too long is cut, what is too many is left
out, and a number that is none is refused.
"""

import math
from typing import Any

from shoal import limits, node_facts
from shoal.v1 import node_facts_pb2 as v1
from shoal.wire import fields
from shoal.wire.codec import FieldCodec, NounCodec, checked, codec, count, enumeration
from shoal.wire.fields import WireError, at

DISKS_MAX = 16
TEMPERATURES_MAX = 32
RAILS_MAX = 32
THROTTLED_MAX = 32

_HEAT = enumeration(node_facts.Heat, v1.Heat, "heat")


def _heat(number: int, _path: str) -> node_facts.Heat:
    try:
        return node_facts.Heat(number)
    except ValueError:
        return node_facts.Heat.UNKNOWN  # a step of a newer agent


HEAT = checked(_heat, _HEAT.encode)


def _word(text: str, _path: str) -> str:
    return text[: limits.FACT_CHARACTERS_MAX]


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise WireError(path, f"{value} is no number that could be measured")
    return value


def _maybe(message: Any, path: str, name: str) -> float | None:
    return _finite(getattr(message, name), at(path, name)) if message.HasField(name) else None


def _some(pair: NounCodec[Any, Any], most: int) -> FieldCodec:
    return checked(
        lambda items, path: fields.each(items[:most], path, pair.decode),
        lambda values: [pair.encode(value) for value in values[:most]],
    )


_WORD = checked(_word, lambda text: text[: limits.FACT_CHARACTERS_MAX])
_NUMBER = checked(_finite)
_OPTIONAL = FieldCodec(_maybe)
_BYTES = count(limits.INTEGER_MAX)

_DISK = codec(node_facts.DiskFact, v1.DiskFact, path=_WORD, total_bytes=_BYTES, free_bytes=_BYTES)
_TEMPERATURE = codec(
    node_facts.TemperatureFact,
    v1.TemperatureFact,
    name=_WORD,
    celsius=_NUMBER,
    throttle_celsius=_OPTIONAL,
    critical_celsius=_OPTIONAL,
)
_RAIL = codec(node_facts.PowerRailFact, v1.PowerRailFact, name=_WORD, milliwatts=_NUMBER)
NODE_FACTS = codec(
    node_facts.NodeFacts,
    v1.NodeFacts,
    "facts",
    os=_WORD,
    os_version=_WORD,
    kernel=_WORD,
    board=_WORD,
    l4t_version=_WORD,
    jetpack_version=_WORD,
    cpu_percent=_OPTIONAL,
    memory_total_bytes=_BYTES,
    memory_available_bytes=_BYTES,
    swap_total_bytes=_BYTES,
    swap_free_bytes=_BYTES,
    disks=_some(_DISK, DISKS_MAX),
    temperatures=_some(_TEMPERATURE, TEMPERATURES_MAX),
    gpu_percent=_OPTIONAL,
    emc_percent=_OPTIONAL,
    rails=_some(_RAIL, RAILS_MAX),
    throttled=checked(
        lambda words, path: tuple(_word(word, path) for word in words[:THROTTLED_MAX]),
        lambda words: [word[: limits.FACT_CHARACTERS_MAX] for word in words[:THROTTLED_MAX]],
    ),
    heat=HEAT,
    problem=_WORD,
)
