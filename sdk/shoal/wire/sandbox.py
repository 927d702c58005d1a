"""What a job asks of its node, and what a node can do, between `shoal.sandbox` and the contract.

What a job asks for is refused where this version does not know it: it could not be kept. What a node can do
and this version does not know is left out: nothing is placed there because of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from shoal import limits, sandbox
from shoal.v1 import sandbox_pb2 as v1
from shoal.wire.codec import NounCodec, alike, checked, codec, enumeration, one
from shoal.wire.fields import WireError

FILTERS_MAX = 16
"""Most filters of a node that are taken."""

WHY_CHARACTERS_MAX = 2_000
"""Most that is kept of the words for why a level cannot be had."""

_LEVEL = enumeration(sandbox.SandboxLevel, v1.SandboxLevel, "level", "level of a sandbox")
_NETWORK = enumeration(sandbox.SandboxNetwork, v1.SandboxNetwork, "network", "network of a sandbox")
_CLAIM_NUMBERS: Mapping[sandbox.Claim, v1.Claim.ValueType] = MappingProxyType({
    claim: v1.Claim.Value(f"CLAIM_{claim.name}") for claim in sandbox.Claim
})  # fmt: skip
_CLAIMS: Mapping[int, sandbox.Claim] = MappingProxyType(
    {number: claim for claim, number in _CLAIM_NUMBERS.items()}
)
_LEVEL_NUMBERS = frozenset(map(_LEVEL.encode, sandbox.SandboxLevel))

# ---- what a job asks for ------------------------------------------------------------------------


def _decode_enforce(numbers: Iterable[int], path: str) -> frozenset[sandbox.Claim]:
    for number in numbers:
        if number not in _CLAIMS:
            known = ", ".join(map(str, _CLAIMS))
            raise WireError(path, f"{number} is not a claim; this version knows {known}")
    return frozenset(_CLAIMS[number] for number in numbers)


def _encode_enforce(claims: Iterable[sandbox.Claim]) -> list[int]:
    return sorted(_CLAIM_NUMBERS[claim] for claim in claims)


_ASKED = codec(
    sandbox.Sandbox,
    v1.SandboxSpec,
    "sandbox",
    level=one(_LEVEL),
    network=one(_NETWORK),
    enforce=checked(_decode_enforce, _encode_enforce),
)


def _encode_asked(value: sandbox.Sandbox) -> v1.SandboxSpec | None:
    """Write what a job asks for; one that asks for nothing has none, as in versions that knew none."""
    return None if value == sandbox.ASKS_NOTHING else _ASKED.encode(value)


SANDBOX: NounCodec[sandbox.Sandbox, Any] = NounCodec(
    _encode_asked, alike(_ASKED, v1.SandboxSpec).decode
)

# ---- what a node can do -------------------------------------------------------------------------


def _word(text: str) -> str:
    return text[: limits.FACT_CHARACTERS_MAX]


def _sentence(text: str) -> str:
    return limits.cut(text, WHY_CHARACTERS_MAX)


def _decode_default(number: int, _path: str) -> sandbox.SandboxLevel:
    return _LEVEL.decode(number) if number in _LEVEL_NUMBERS else sandbox.SandboxLevel.NONE


def _decode_levels(numbers: Iterable[int], _path: str) -> frozenset[sandbox.SandboxLevel]:
    return frozenset(_LEVEL.decode(number) for number in numbers if number in _LEVEL_NUMBERS)


def _encode_levels(levels: Iterable[sandbox.SandboxLevel]) -> list[int]:
    return sorted(map(_LEVEL.encode, levels))


def _decode_enforces(
    messages: Iterable[v1.EnforcedClaim], _path: str
) -> Mapping[sandbox.Claim, str]:
    said = {_CLAIMS[one.claim]: _word(one.by) for one in messages if one.claim in _CLAIMS}
    return MappingProxyType({claim: said[claim] for claim in sandbox.Claim if claim in said})


def _encode_enforces(enforces: Mapping[sandbox.Claim, str]) -> list[v1.EnforcedClaim]:
    return [
        v1.EnforcedClaim(claim=_CLAIM_NUMBERS[claim], by=_word(enforces[claim]))
        for claim in sandbox.Claim
        if claim in enforces
    ]


def _decode_filters(words: Sequence[str], _path: str) -> tuple[str, ...]:
    return tuple(map(_word, words[:FILTERS_MAX]))


def _decode_refused(
    messages: Iterable[v1.RefusedLevel], _path: str
) -> Mapping[sandbox.SandboxLevel, str]:
    said = {
        _LEVEL.decode(one.level): _sentence(one.why)
        for one in messages
        if one.level in _LEVEL_NUMBERS
    }
    return MappingProxyType({level: said[level] for level in sandbox.SandboxLevel if level in said})


def _encode_refused(refused: Mapping[sandbox.SandboxLevel, str]) -> list[v1.RefusedLevel]:
    return [
        v1.RefusedLevel(level=_LEVEL.encode(level), why=_sentence(refused[level]))
        for level in sandbox.SandboxLevel
        if level in refused
    ]


NODE_SANDBOX = codec(
    sandbox.NodeSandbox,
    v1.NodeSandbox,
    "sandbox",
    default=checked(_decode_default, _LEVEL.encode),
    levels=checked(_decode_levels, _encode_levels),
    enforces=checked(_decode_enforces, _encode_enforces),
    filters=checked(_decode_filters),
    refused=checked(_decode_refused, _encode_refused),
)
