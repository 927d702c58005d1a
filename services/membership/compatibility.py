"""Whether two sets of members speak the same protocol versions.

Only a push/pull exchange checks this; plain gossip does not, as upstream.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.membership.member import Member
from services.membership.message import MemberState, NodeState, Versions


def incompatibility(remote: Iterable[NodeState], local: Iterable[Member]) -> str | None:
    """Say in one sentence why the two cannot be merged, None if they can.

    The alive members of both sides span the windows `[max of minima, min of maxima]`; everybody's
    current versions, dead remote ones included, must lie within.
    """
    current: set[tuple[str, Versions]] = set()
    low, high, delegate_low, delegate_high = 0, 255, 0, 255
    seen: set[Versions] = set()
    rows = [(node.name, node.versions, node.state) for node in remote]
    rows += [(member.name, member.versions, member.state) for member in local]
    for name, versions, state in rows:
        if versions is None:
            continue
        key = versions
        if state is MemberState.ALIVE and key not in seen:
            seen.add(key)
            low = max(low, versions.protocol_min)
            high = min(high, versions.protocol_max)
            delegate_low = max(delegate_low, versions.delegate_min)
            delegate_high = min(delegate_high, versions.delegate_max)
        current.add((name, versions))
    for name, versions in current:
        if not low <= versions.protocol <= high:
            return f"{name} speaks protocol {versions.protocol}, outside {low}..{high}"
        if not delegate_low <= versions.delegate <= delegate_high:
            return (
                f"{name} speaks delegate protocol {versions.delegate}, "
                f"outside {delegate_low}..{delegate_high}"
            )
    return None
